//! What both endpoints have that exchange descriptions: number properties of Kurento's SdpEndpoint and
//! BaseRtpEndpoint, and what the caller of an offer wants in it.

use crate::model::types::OfferOptions;

/// Properties of a class that are whole numbers and take effect at once.
macro_rules! number_properties {
    ($class:ident: $($get:ident, $set:ident, $field:ident;)*) => {
        impl $class {$(
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

/// The same, of which it counts whether a client ever set them: the default is what is read, and bounds
/// nothing.
macro_rules! number_properties_unless_set {
    ($class:ident: $($get:ident, $set:ident, $field:ident = $default:expr;)*) => {
        impl $class {$(
            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $get(&mut self, _: &mut Context<'_>) -> Result<i32> {
                Ok(self.properties.$field.unwrap_or($default))
            }

            #[allow(missing_docs, reason = "the descriptor documents properties")]
            pub fn $set(&mut self, cx: &mut Context<'_>, value: i32) -> Result<()> {
                self.properties.$field = Some(value);
                self.apply_properties(cx);
                Ok(())
            }
        )*}
    };
}

/// Those of every class that speaks RTP.
macro_rules! rtp_properties {
    ($class:ident) => {
        $crate::elements::sdp_endpoint::number_properties! { $class:
            get_max_audio_recv_bandwidth, set_max_audio_recv_bandwidth, max_audio_recv;
            get_max_video_recv_bandwidth, set_max_video_recv_bandwidth, max_video_recv;
            get_min_video_recv_bandwidth, set_min_video_recv_bandwidth, min_video_recv;
            get_mtu, set_mtu, mtu;
        }
        $crate::elements::sdp_endpoint::number_properties_unless_set! { $class:
            get_min_video_send_bandwidth, set_min_video_send_bandwidth, min_video_send = 100;
            get_max_video_send_bandwidth, set_max_video_send_bandwidth, max_video_send = 500;
        }
    };
}

pub(super) use {number_properties, number_properties_unless_set, rtp_properties};

/// Whether an offer has audio, and whether it has video: both, unless the caller says otherwise.
pub(super) fn wanted(options: Option<&OfferOptions>) -> (bool, bool) {
    let wanted = |option: Option<bool>| option.unwrap_or(true);
    options.map_or((true, true), |options| {
        (wanted(options.offer_to_receive_audio), wanted(options.offer_to_receive_video))
    })
}
