use super::*;
use crate::rtp::{Bitrate, NtpTime};
use proptest::{collection::vec, prelude::*};

fn read(bytes: &[u8]) -> Vec<Rtcp<'_>> {
    packets(bytes).map(Result::unwrap).collect()
}

fn block(seed: u32) -> ReportBlock {
    ReportBlock {
        ssrc: seed,
        fraction_lost: seed as u8,
        lost: -(seed as i32 & 0xffff),
        highest: seed.rotate_left(7),
        jitter: seed ^ 0x5555,
        last_sr: !seed,
        since_sr: seed >> 3,
    }
}

#[test]
fn a_compound_packet_reads_as_it_was_written() {
    let info = SenderInfo { ntp: NtpTime::from_bits(1 << 40), timestamp: 2, packets: 3, octets: 4 };
    let mut bytes = Vec::new();
    write_sender_report(&mut bytes, 1, &info, &[block(5), block(6)]);
    write_sdes_cname(&mut bytes, &[1, 2], "someone@somewhere");
    write_pli(&mut bytes, 1, 5);
    write_fir(&mut bytes, 1, 6, 200);
    write_bye(&mut bytes, &[1, 2]);
    let read = read(&bytes);
    let Rtcp::SenderReport { ssrc: 1, info: back, blocks } = read[0] else { panic!("{read:?}") };
    assert_eq!((back, blocks.collect::<Vec<_>>()), (info, vec![block(5), block(6)]));
    let Rtcp::Sdes { chunks } = read[1] else { panic!("{read:?}") };
    let name = Some(&b"someone@somewhere"[..]);
    assert_eq!(chunks.collect::<Vec<_>>(), [(1, name), (2, name)]);
    assert!(matches!(read[2], Rtcp::Pli { sender: 1, media: 5 }));
    let Rtcp::Fir { sender: 1, entries } = read[3] else { panic!("{read:?}") };
    assert_eq!(entries.collect::<Vec<_>>(), [(6, 200)]);
    let Rtcp::Bye { ssrcs } = read[4] else { panic!("{read:?}") };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_packet_with_padding_and_an_unknown_one_are_stepped_over() {
    let mut bytes = vec![0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    bytes.extend([0x80, 207, 0, 1, 9, 9, 9, 9]);
    let read = read(&bytes);
    assert!(matches!(read[0], Rtcp::Pli { sender: 1, media: 2 }));
    assert!(matches!(read[1], Rtcp::Other { packet_type: 207, count: 0, body: [9, 9, 9, 9] }));
}

#[test]
fn lengths_that_do_not_fit_end_the_walk() {
    let errors = |bytes: &[u8]| packets(bytes).map(Result::err).collect::<Vec<_>>();
    assert_eq!(errors(&[0x80, 200]), [Some(RtcpError::Short(0))]);
    assert_eq!(errors(&[0x40, 200, 0, 0]), [Some(RtcpError::Version(1))]);
    assert_eq!(errors(&[0x80, 201, 0, 1, 0, 0, 0]), [Some(RtcpError::Short(201))]);
    assert_eq!(errors(&[0x81, 201, 0, 1, 0, 0, 0, 1]), [Some(RtcpError::Short(201))]);
    assert_eq!(errors(&[0xa0, 201, 0, 1, 0, 0, 0, 9]), [Some(RtcpError::Padding(201))]);
    // A chunk that is not there, and an item that is longer than its packet.
    assert_eq!(errors(&[0x81, 202, 0, 0]), [Some(RtcpError::Short(202))]);
    assert_eq!(
        errors(&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 200, b'x', 0]),
        [Some(RtcpError::Short(202))]
    );
    assert_eq!(errors(&[0x9f, 203, 0, 1, 0, 0, 0, 1]), [Some(RtcpError::Short(203))]);
    assert_eq!(errors(&[0x80, 204, 0, 1, 0, 0, 0, 1]), [Some(RtcpError::Short(204))]);
    let xr = [0x80, 207, 0, 2, 0, 0, 0, 1, 4, 0, 0, 1];
    assert_eq!(errors(&xr), [Some(RtcpError::Short(207))]);
    assert_eq!(errors(&[0x80, 207, 0, 2, 0, 0, 0, 1, 4, 0, 0, 0]), [None]);
}

#[test]
fn a_bitrate_beyond_64_bits_is_the_highest_there_is() {
    let mut bytes = Vec::new();
    write_remb(&mut bytes, 1, Bitrate::from_bps(1), &[]);
    let at = bytes.len() - 3;
    bytes[at..].fill(0xff);
    let Rtcp::Remb { bitrate, .. } = read(&bytes)[0] else { panic!() };
    assert_eq!(bitrate.bps(), u64::MAX);
}

proptest! {
    #[test]
    fn no_bytes_make_the_walk_panic(mut bytes: Vec<u8>, kind in 200u8..208, count in 0u8..32) {
        if bytes.len() > 3 {
            bytes[0] = 0x80 | (bytes[0] & 0x20) | count;
            bytes[1] = kind;
            bytes[2] = 0;
        }
        for packet in packets(&bytes) {
            match packet {
                Ok(Rtcp::SenderReport { blocks, .. } | Rtcp::ReceiverReport { blocks, .. }) => {
                    blocks.count();
                }
                Ok(Rtcp::Sdes { chunks }) => prop_assert!(chunks.count() < 32),
                Ok(Rtcp::Nack { lost, .. }) => prop_assert!(lost.count() <= bytes.len() * 5),
                Ok(Rtcp::Bye { ssrcs } | Rtcp::Remb { ssrcs, .. }) => prop_assert!(ssrcs.count() < 256),
                _ => {}
            }
        }
    }

    #[test]
    fn a_nack_names_what_was_lost(start: u16, steps in vec(1u64..40, 0..60)) {
        let mut lost = vec![u64::from(start)];
        for step in steps {
            lost.push(lost[lost.len() - 1] + step);
        }
        let mut bytes = Vec::new();
        write_nack(&mut bytes, 1, 2, &lost);
        let Rtcp::Nack { sender: 1, media: 2, lost: named } = read(&bytes)[0] else { panic!() };
        prop_assert!(named.eq(lost.iter().map(|&sequence| sequence as u16)));
    }

    #[test]
    fn a_bitrate_loses_little_in_eighteen_bits(bps: u64, ssrcs: Vec<u32>) {
        let mut bytes = Vec::new();
        write_remb(&mut bytes, 9, Bitrate::from_bps(bps), &ssrcs);
        let Rtcp::Remb { sender: 9, bitrate, ssrcs: named } = read(&bytes)[0] else { panic!() };
        prop_assert!(bitrate.bps() <= bps && bps - bitrate.bps() <= bps >> 17);
        prop_assert!(named.eq(ssrcs.iter().take(255).copied()));
    }

    #[test]
    fn report_blocks_survive_the_wire(seeds in vec(any::<u32>(), 0..40)) {
        let blocks: Vec<_> = seeds.into_iter().map(block).collect();
        let mut bytes = Vec::new();
        write_receiver_report(&mut bytes, 7, &blocks);
        let Rtcp::ReceiverReport { ssrc: 7, blocks: back } = read(&bytes)[0] else { panic!() };
        prop_assert!(back.eq(blocks.into_iter().take(MAX_BLOCKS)));
    }
}
