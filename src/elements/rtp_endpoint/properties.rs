//! Properties of an RtpEndpoint: those of all endpoints that speak RTP. They take effect at once.

use super::{Result, RtpEndpoint};
use crate::elements::{Context, index};
use crate::model::types::{ConnectionState, MediaState, RembParams};
use crate::rtp::Kind;

macro_rules! numbers {
    ($($get:ident, $set:ident, $field:ident;)*) => {
        impl RtpEndpoint {$(
            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $get(&mut self, _: &mut Context<'_>) -> Result<i32> {
                Ok(self.properties.$field)
            }

            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $set(&mut self, cx: &mut Context<'_>, value: i32) -> Result<()> {
                self.properties.$field = value;
                self.apply_properties(cx);
                Ok(())
            }
        )*}
    };
}

numbers! {
    get_max_audio_recv_bandwidth, set_max_audio_recv_bandwidth, max_audio_recv;
    get_max_video_recv_bandwidth, set_max_video_recv_bandwidth, max_video_recv;
    get_min_video_recv_bandwidth, set_min_video_recv_bandwidth, min_video_recv;
    get_min_video_send_bandwidth, set_min_video_send_bandwidth, min_video_send;
    get_max_video_send_bandwidth, set_max_video_send_bandwidth, max_video_send;
    get_mtu, set_mtu, mtu;
}

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
        }
    }
}
