//! Properties of an RtpEndpoint: those of all endpoints that speak RTP. They take effect at once.

use super::{Result, RtpEndpoint};
use crate::elements::sdp_endpoint::rtp_properties;
use crate::elements::{Context, index};
use crate::model::types::{ConnectionState, MediaState, RembParams};
use crate::rtp::Kind;

rtp_properties!(RtpEndpoint);

impl RtpEndpoint {
    /// Whether control packets arrive.
    pub fn get_media_state(&mut self, _: &mut Context<'_>) -> Result<MediaState> {
        Ok(self.media_state)
    }

    /// Connected from the negotiation on.
    pub fn get_connection_state(&mut self, _: &mut Context<'_>) -> Result<ConnectionState> {
        Ok(self.connection_state)
    }

    /// Without members until they were set or REMB was negotiated; then those in force.
    pub fn get_remb_params(&mut self, _: &mut Context<'_>) -> Result<RembParams> {
        Ok(self.properties.remb_params(self.negotiated_remb()))
    }

    /// Takes effect at once.
    pub fn set_remb_params(&mut self, cx: &mut Context<'_>, params: RembParams) -> Result<()> {
        self.properties.remb_params = Some(params);
        self.apply_properties(cx);
        Ok(())
    }

    fn apply_properties(&mut self, cx: &mut Context<'_>) {
        for kind in [Kind::Audio, Kind::Video] {
            if let Some(source) = self.sources[index(kind)] {
                self.properties.apply(cx.router, source, kind);
            }
            if let Some(sink) = self.sinks[index(kind)] {
                self.properties.apply_to_sink(cx.router, cx.at.now, sink);
            }
        }
    }
}
