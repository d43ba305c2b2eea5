// kurento-client as applications of the 6.x line have it.
export { default } from 'kurento-client';
