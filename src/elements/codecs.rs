//! Which codecs the settings leave to the endpoints that speak SDP, and in which order.

use crate::rtp::Codec;

/// Those of `known` that `wanted` names, in its order; all of them if it names none. What an endpoint
/// does not know is passed over, for one list serves endpoints of both kinds.
pub(super) fn chosen(wanted: &[String], known: &[Codec]) -> Vec<Codec> {
    if wanted.is_empty() {
        return known.to_vec();
    }
    let mut codecs = Vec::new();
    let named = wanted.iter().filter_map(|name| Codec::from_description(name));
    for codec in named.filter(|codec| known.contains(codec)) {
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    codecs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_choose_codecs_and_their_order_and_add_none() {
        let known = [Codec::Opus, Codec::Pcmu, Codec::Pcma];
        let of = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen(&wanted, &known)
        };
        assert_eq!(of(&[]), known);
        let wanted = ["pcma/8000", "AMR/8000", "opus/48000/2", "PCMA/8000/1", "speex/16000"];
        assert_eq!(of(&wanted), [Codec::Pcma, Codec::Opus]);
        assert_eq!(of(&["opus/48000"]), []);
    }
}
