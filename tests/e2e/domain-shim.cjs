// The transactions of kurento-client call `domain.Domain` as a plain function, the way classes were
// inherited before `class`. Node made it a class long ago; this makes it callable again.
'use strict';

const domain = require('node:domain');

const { Domain } = domain;

function CallableDomain() {
  const fresh = new Domain();
  if (!new.target) return Object.assign(this, fresh);
  return Object.setPrototypeOf(fresh, new.target.prototype);
}
CallableDomain.prototype = Domain.prototype;
domain.Domain = CallableDomain;
