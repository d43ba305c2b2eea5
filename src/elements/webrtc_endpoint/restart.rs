//! A second offer by which the peer asks for an ICE restart (RFC 8839 §4.4.1.1.1).
//!
//! Kurento takes no second offer at all, and neither does this server take one that changes anything
//! else: it must come from the session of before, as its origin says (RFC 3264 §8), and mean the same for
//! every section but for where the peer is to be found. Then only the transports have something to do,
//! and the streams never hear of it.

use super::{Negotiation, Result, WebRtcEndpoint};
use crate::elements::Context;
use crate::model::SdpFailure;
use crate::model::types::event::IceGatheringDone;
use crate::sdp::{self, Description, Media, Setup};

impl WebRtcEndpoint {
    /// Answers an offer after the first one.
    ///
    /// # Errors
    /// [`SdpFailure::AlreadyNegotiated`] if it asks for anything but a restart;
    /// [`SdpFailure::ProcessOffer`] if there is no randomness for new credentials.
    pub(super) fn restart(&mut self, cx: &mut Context<'_>, remote: Description) -> Result<String> {
        let refused = || SdpFailure::AlreadyNegotiated.into();
        let capabilities = self.capabilities(cx);
        let Negotiation::Done(agreed) = &mut self.negotiation else { return Err(refused()) };
        let same = agreed.media.len() == remote.media.len();
        if !same || !remote.continues(&agreed.remote.read()) {
            return Err(refused());
        }
        let credentials = self.transports.fresh_credentials(cx);
        let credentials = credentials.map_err(|_| SdpFailure::ProcessOffer)?;
        let mut ours = self.transports.local(cx, remote.media.len());
        ours.ssrcs = agreed.media.iter().map(|media| media.local_ssrc).collect();
        let repair = |media: &Media| media.local_rtx_ssrc.unwrap_or_default();
        ours.rtx_ssrcs = agreed.media.iter().map(repair).collect();
        ours.credentials.clone_from(&credentials);
        let answer = sdp::answer(&remote, &capabilities, &ours).map_err(|_| refused())?;
        let sdp::Negotiated { mut local, mut media } = answer;
        for (index, (before, after)) in agreed.media.iter().zip(&mut media).enumerate() {
            if remote.offers_both_roles(index) {
                // The roles of DTLS stay, for its association does (RFC 8842 §5.5).
                after.setup = before.setup;
                local.set_role(index, before.setup);
            }
            let moved = match (&before.ice, &after.ice) {
                (Some(old), Some(new)) => old.0 != new.0 && old.1 != new.1,
                _ => false,
            };
            if !before.agrees_but_for_ice(after) || before.accepted && !moved {
                return Err(refused());
            }
        }
        local.succeed(&agreed.local.read());
        self.transports.restart(cx, &media, credentials);
        tracing::info!("ICE is restarted at the peer's wish");
        (agreed.local, agreed.remote) = (sdp::Stored::new(&local), sdp::Stored::new(&remote));
        agreed.media = media;
        self.retell = self.gathering;
        self.get_local_session_descriptor(cx)
    }

    /// Tells the candidates again after a restart; once for each.
    pub(super) fn tell_again(&mut self, cx: &mut Context<'_>) {
        if !std::mem::take(&mut self.retell) {
            return;
        }
        let complete = self.transports.gather_again(cx, &self.properties);
        self.tell_candidates(cx);
        if complete {
            cx.raise(IceGatheringDone {});
        }
    }
}

impl Description {
    /// Whether this is a later description of the same session (RFC 3264 §8): the same user and session
    /// in its origin, and a higher version.
    fn continues(&self, before: &Self) -> bool {
        let read = |description: &Self| {
            let origin = description.session.origin.clone()?;
            let mut words = origin.split_ascii_whitespace().map(str::to_owned);
            let (user, session) = (words.next()?, words.next()?);
            let version: u64 = words.next()?.parse().ok()?;
            Some(((user, session), version))
        };
        let (Some((new, version)), Some((old, last))) = (read(self), read(before)) else {
            return false;
        };
        new == old && version > last
    }

    /// Follows a description of ours: the same session, and the next version.
    fn succeed(&mut self, before: &Self) {
        let Some(origin) = &before.session.origin else { return };
        let mut words: Vec<_> = origin.split(' ').map(str::to_owned).collect();
        if let Some(version) = words.get_mut(2)
            && let Ok(number) = version.parse::<u64>()
        {
            *version = (number + 1).to_string();
        }
        self.session.origin = Some(words.join(" "));
    }

    /// Whether the section leaves it to us who is the client of DTLS.
    fn offers_both_roles(&self, index: usize) -> bool {
        let attributes = self.media[index].attributes.iter().chain(&self.session.attributes);
        let mut setups = attributes.filter(|attribute| attribute.name == "setup");
        setups.next().is_none_or(|setup| setup.value() == Setup::ActPass.name())
    }

    fn set_role(&mut self, index: usize, role: Setup) {
        for attribute in &mut self.media[index].attributes {
            if attribute.name == "setup" {
                attribute.value = Some(role.name().to_owned());
            }
        }
    }
}
