#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: one small valid input for each thing a parser tells apart."""

import struct
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"


def seed(target, name, content):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def rtp(payload, flags=0, extension=b"", tail=b""):
    return struct.pack("!BBHII", 0x80 | flags, 96, 4711, 90000, 0xCAFE) + extension + payload + tail


def rtcp(count, kind, body):
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def words(*values):
    return struct.pack(f"!{len(values)}I", *values)


seed("rtp_packet", "plain", rtp(b"payload"))
seed("rtp_packet", "one_byte_extensions", rtp(b"x", 0x10, b"\xbe\xde\x00\x02\x32\x01\x02\x03\x51\xff\xff\x00"))
seed("rtp_packet", "two_byte_extensions", rtp(b"x", 0x10, b"\x10\x00\x00\x01\x03\x01\x09\x00"))
seed("rtp_packet", "padding", rtp(b"x", 0x20, tail=b"\x00\x00\x03"))
seed("rtp_packet", "contributing_sources", rtp(b"x", 0x02, words(1, 2)))

BLOCK = words(0xCAFE, 0x10000005, 4711, 12, 0x11112222, 65536)
REPORT = rtcp(1, 200, words(1, 0xE0000000, 0, 90000, 10, 1000) + BLOCK)
CNAME = rtcp(1, 202, words(1) + b"\x01\x04name\x00\x00")
seed("rtcp", "sender_report", REPORT + CNAME)
seed("rtcp", "receiver_report", rtcp(1, 201, words(1) + BLOCK))
seed("rtcp", "bye", rtcp(2, 203, words(1, 2)))
seed("rtcp", "nack", rtcp(1, 205, words(1, 2) + b"\x12\x67\x00\x0f"))
seed("rtcp", "transport_feedback", rtcp(15, 205, words(1, 2) + b"\x00\x01\x00\x02\x00\x00\x01\x00\x20\x02\x04\x04"))
FEEDBACK = rtcp(15, 205, words(1, 2) + b"\xff\xfe\x00\x04\x00\x00\x02\x03\xd1\x80\x01\x02\x01\x00\x00\x00")
seed("transport_feedback", "pairs", FEEDBACK)
seed("transport_feedback", "bits", rtcp(15, 205, words(1, 2) + b"\x00\x01\x00\x03\x00\x00\x01\x00\xa8\x00\x04\x04"))
seed("transport_feedback", "all_lost", rtcp(15, 205, words(1, 2) + b"\x00\x00\xff\xff\x00\x00\x01\x00" + b"\x1f\xff" * 10))
seed("transport_feedback", "run", rtcp(15, 205, words(1, 2) + b"\x00\x01\x00\x02\x00\x00\x01\x00\x20\x02\x04\x04"))
seed("red", "blocks", rtp(b"\xef\x0f\x00\x02\x6f\x01\x02\x03\x04"))
seed("red", "bare", b"\xef\x0f\x00\x02\x6f\x01\x02\x03\x04")
seed("red", "extensions", rtp(b"\x6f\x01", 0x10, b"\xbe\xde\x00\x06\x11\x12\x34\x50\x8a\x6f" + bytes(18)))
seed("rtcp", "pli", rtcp(1, 206, words(1, 2)))
seed("rtcp", "fir", rtcp(4, 206, words(1, 0, 2) + b"\x01\x00\x00\x00"))
seed("rtcp", "remb", rtcp(15, 206, words(1, 0) + b"REMB\x01\x0b\xd0\x90" + words(2)))

STUN = b"\x00\x01\x00\x0c\x21\x12\xa4\x42" + b"t" * 12 + b"\x00\x06\x00\x08abcd:xyz"
RECORD = b"\x16\xfe\xfd" + bytes(8) + b"\x00\x0c\x01\x00\x00\x00" + bytes(8)
HELLO_BODY = b"\xfe\xfd" + b"r" * 32 + b"\x00\x00" + b"\x00\x02\xc0\x2b" + b"\x01\x00" + b"\x00\x00"
HELLO = (
    b"\x16\xfe\xfd" + bytes(8) + struct.pack("!H", len(HELLO_BODY) + 12) + b"\x01"
    + struct.pack("!I", len(HELLO_BODY))[1:] + bytes(2) + bytes(3)
    + struct.pack("!I", len(HELLO_BODY))[1:] + HELLO_BODY
)
ALERT = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"
seed("stun_demux", "binding_request", STUN)
seed("stun_demux", "dtls", RECORD)
seed("stun_demux", "rtp", rtp(b"x"))
seed("stun_demux", "rtcp", REPORT)


def exchange(*datagrams):
    return b"".join(struct.pack("!H", len(one)) + one for one in datagrams)


seed("dtls_record", "client_hello", exchange(HELLO))
seed("dtls_record", "hello_twice", exchange(HELLO, HELLO))
seed("dtls_record", "hello_and_alert", exchange(HELLO, ALERT))
seed("plain_rtp", "declared", b"\0" + exchange(rtp(b"x"), REPORT, rtp(b"y")))
seed("plain_rtp", "learnt", b"\1" + exchange(rtp(b"x"), REPORT, rtp(b"y")))
seed("plain_rtp", "sealed", b"\2" + exchange(rtp(b"x" * 20), REPORT + b"\x80\0\0\1" + b"t" * 10))
seed("dtls_record", "stun_between", exchange(STUN, HELLO, rtp(b"x"), RECORD))

seed("srtp", "rtp_gcm", rtp(b"payload" + bytes(16)))
seed("srtp", "rtcp_gcm", REPORT + bytes(16) + b"\x80\x00\x00\x01")
seed("srtp", "rtcp_cm", REPORT + b"\x80\x00\x00\x01" + bytes(10))

for name, params in {
    "create": '{"type":"MediaPipeline","constructorParams":{}}',
    "invoke": '{"object":"a/b","operation":"connect","operationParams":{"sink":"a/c"}}',
    "subscribe": '{"object":"a","type":"Error","sessionId":"s"}',
    "ping": '{"interval":5000}',
    "null": "null",
    "list": "[1, 2]",
}.items():
    seed("json_rpc", name, f'{{"jsonrpc":"2.0","id":1,"method":"{name}","params":{params}}}')
SETTINGS = {
    "main": '{"mediaServer": {"resources": {"killLimit": "0.7", // c\n"garbageCollectorPeriod": 8}, "net": {"websocket": '
    '{"//port": 1, "port": "8888", "secure": {"port": 8433, "certificate": "c.pem"}}}}, "metadata": {"a": [1]}}',
    "own": '{"rivero": {"token": "k", "origins": "https://a", "limits": {"idleSeconds": 0.5}, "logs": {"format": "json"}}}',
    "ini": "; c\n[s]\nturnURL=u:p@[::1]:3478?transport=tls\nexternalIPv4=auto\nnetworkInterfaces=a,b\n",
    "module": '{"turnURL": "u:p@h:1", "networkInterfaces": [{"name": "a"}], "qos-dscp": "CS1" /* c */ }',
}
for name, text in SETTINGS.items():
    seed("config", name, text)
seed("json_rpc", "notification", '{"jsonrpc":"2.0","method":"ping"} // and more')
seed("json_rpc", "text_escapes", '{"jsonrpc":"2.0","id":"\\u00e9\\n","method":"é"}')

CONNECTED = '{"id":@,"jsonrpc":"2.0","result":{"serverId":"a","sessionId":"s"}}\n'
seed("client", "connected", CONNECTED)
seed("client", "lost_session", '{"error":{"code":40007,"message":"Invalid session"},"id":@}\n' + CONNECTED)
seed("client", "answers", CONNECTED + '{"id":"@","result":{"value":[1]}}\n{"id":@,"result":null}\n')
seed("client", "event", CONNECTED + '{"method":"onEvent","params":{"value":{"data":{},"object":"o","type":"t"}}}')
seed("client", "request", CONNECTED + '{"id":"x","method":"poll"}\n[]\n{')

for name, line, params in [
    ("text", "MediaObject setName", '{"name":"x"}'),
    ("integer", "MediaElement setEncoderBitrate", '{"encoderBitrate":5.7}'),
    ("boolean", "WebRtcEndpoint setIceTcp", '{"iceTcp":1}'),
    ("int64", "PlayerEndpoint setPosition", '{"position":-1}'),
    ("object_and_enum", "MediaElement connect", '{"sink":"PassThrough","mediaType":"VIDEO"}'),
    ("whole_object", "DispatcherOneToMany setSource", '{"source":{"id":"HubPort"}}'),
    ("register", "WebRtcEndpoint addIceCandidate", '{"candidate":{"candidate":"","sdpMid":"0","sdpMLineIndex":0}}'),
    ("named_register", "BaseRtpEndpoint setRembParams", '{"rembParams":{"__type__":"RembParams","__module__":"kurento"}}'),
    ("register_in_register", "MediaElement setVideoFormat", '{"caps":{"codec":"VP8","framerate":{"numerator":1,"denominator":2}}}'),
    ("positional", "WebRtcEndpoint createDataChannel", '{"label":"a","protocol":"b"}'),
    ("constructor", "RtpEndpoint", '{"mediaPipeline":"MediaPipeline","crypto":{"crypto":"AES_128_CM_HMAC_SHA1_80"}}'),
    ("list", "CrowdDetectorFilter", '{"mediaPipeline":"MediaPipeline","rois":[{"points":[{"x":0,"y":1}],"regionOfInterestConfig":{},"id":"a"}]}'),
]:
    seed("params", name, f"{line}\n{params}")

seed("keyframes", "vp8", b"\x90\x80\x81\x23\x10\x02\x00\x9d\x01\x2a\x40\x01\xf0\x00")
seed("keyframes", "vp9", b"\x8a\x81\x23\x0a\x18\x00\x01\x40\x00\xf0\x82\x49\x83\x42")
seed("keyframes", "h264_stap_a", b"\x78\x00\x04\x67\x42\xe0\x1f\x00\x02\x68\xce\x00\x02\x65\x88")
seed("keyframes", "h264_fu_a", b"\x7c\x85\x88\x80")
seed("keyframes", "av1", b"\x18\x0b\x0a\x0b\x00\x00\x00\x24\xc4\xff\xdf\x3f\x32\x10\x30\x10")

PLAIN = "v=0\r\no=- 0 0 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
KEY = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk|2^20\r\n"
RTCP_PORT = "a=rtcp:41005 IN IP4 192.0.2.8\r\n"
seed("sdp", "plain_rtp", PLAIN + "m=audio 41000 RTP/AVP 0\r\n" + RTCP_PORT + "a=direction:active\r\n")
seed(
    "sdp",
    "extras",
    "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 RTP/SAVPF 63 111\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
    "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
    "m=video 9 RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n"
    "a=rtcp-fb:96 transport-cc\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
    "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n"
    "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
    "a=extmap:5/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n"
    "a=rid:a send pt=96;max-fps=9\r\na=rid:b send\r\na=simulcast:send a,b;~b recv c\r\n"
    "a=ssrc-group:SIM 1 2\r\na=ssrc-group:FID 1 3\r\na=ssrc:1 cname:c\r\na=ssrc:3 cname:c\r\n",
)
seed("sdp", "plain_keys", PLAIN + "m=video 41000 RTP/SAVPF 96\r\na=rtpmap:96 H265/90000\r\n" + KEY)
seed("keyframes", "h265_aggregate", b"\x60\x01\x00\x03\x40\x01\x0c\x00\x03\x42\x01\x01")
seed("keyframes", "h265_fragment", b"\x62\x01\x93\xaf")

seed(
    "sdp",
    "small",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\n"
    "a=rtpmap:111 opus/48000/2\r\na=ssrc:1 cname:x\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"
    "a=setup:actpass\r\na=rtcp-mux\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nb=AS:500\r\na=mid:1\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n"
    "a=rtcp-fb:96 nack pli\r\na=rtpmap:97 H264/90000\r\na=fmtp:97 packetization-mode=1\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n",
)

MDNS_NAME = b"\x03abc\x05local\x00"
MDNS = b"\x00\x00\x84\x00\x00\x01\x00\x01" + bytes(4) + MDNS_NAME + b"\x00\x01\x00\x01"
seed("network", "neighbour", MDNS + b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x78\x00\x04\xc0\x00\x02\x07")
seed("network", "frames", b"\x00\x03abc\x00\x00\x00\x01x")
seed("network", "channel", b"\x40\x00\x00\x05hello\x00\x00\x00")
INDICATION = b"\x00\x12\x00\x08\x00\x01\x32\x50\xe1\x12\xa6\x45" + b"\x00\x13\x00\x05hello\x00\x00\x00"
seed("network", "indication", b"\x00\x17\x00\x18\x21\x12\xa4\x42" + b"t" * 12 + INDICATION)

seed("candidate", "host", "candidate:842163049 1 udp 1677729535 192.0.2.7 46154 typ host generation 0 ufrag EEtu network-id 3")
seed("candidate", "several", "a=candidate:1 1 UDP 5 2001:db8::7 9 typ srflx raddr 10.0.0.9 rport 9\n1 1 tcp 1 192.0.2.7 443 typ relay tcptype passive\n\na=end-of-candidates")
seed("candidate", "name", "candidate:1 1 udp 2113937151 0ae5b5b6-a6ee.local 51733 typ host")
seed("candidate", "fingerprint", "sha-256 " + ":".join(["AB"] * 32))


def chunk(kind, flags, body):
    return struct.pack("!BBH", kind, flags, 4 + len(body)) + body + b"\0" * (-len(body) % 4)


def data(tsn, stream, protocol, payload, flags=3):
    return chunk(0, flags, struct.pack("!IHHI", tsn, stream, 0, protocol) + payload)


OPEN = b"\x03\x81\0\0\0\0\0\x03\0\x05\0\x05labelproto"
seed("dcep", "open", OPEN)
seed("dcep", "ack", b"\x02")
seed("dcep", "data", exchange(data(1, 0, 50, OPEN), data(2, 0, 51, b"text"), data(3, 0, 53, b"bytes")))
seed("dcep", "fragments", exchange(data(1, 2, 53, b"a" * 20, 2), data(2, 2, 53, b"b" * 20, 0), data(3, 2, 53, b"c", 1)))
seed("dcep", "bundle", exchange(data(1, 0, 50, OPEN) + data(2, 0, 57, b"\0") + chunk(4, 0, b"\0\x01\0\x08beat")))
seed("dcep", "sack", exchange(chunk(3, 0, struct.pack("!IIHHHH", 1, 65536, 1, 0, 2, 3))))
seed("dcep", "forward", exchange(chunk(192, 0, struct.pack("!IHH", 4, 0, 1)), data(5, 0, 51, b"late")))
seed("dcep", "reset", exchange(chunk(130, 0, struct.pack("!HHIIIH", 13, 18, 1, 0, 1, 0))))
seed("dcep", "init", exchange(chunk(1, 0, struct.pack("!IIHHI", 7, 65536, 0, 0, 1))))
seed("dcep", "shutdown", exchange(chunk(7, 0, words(1)), chunk(8, 0, b""), chunk(14, 0, b"")))
seed("dcep", "abort", exchange(chunk(6, 0, b"")))

# The means of the receiver, then calls: what to do, and its numbers.
SENT = b"\x00\x40"
TOLD = b"\x0d" + b"\x40\x00\x01\x00\x32\x10" + bytes(6) + b"\x03\xe8" + b"\x64\x08\x00\xff"
seed("bandwidth", "feedback", b"\x00" + (b"\x08\x05\x15" + SENT + TOLD) * 4)
seed("bandwidth", "remb_and_bounds", b"\x02" + SENT + b"\x05\x02\x15" + b"\x07\x01\x11\x02\x14\x05\x10")
seed("bandwidth", "reports", b"\x03" + (SENT + b"\x6a\x32\x09" + b"\x09\x04\x08") * 8)

def datagrams(*all):
    return b"".join(struct.pack("!H", len(one)) + one for one in all)


def vp8(encoding, step, time, picture, layer, key=False, budget=False):
    first = encoding << 6 | budget << 5 | (step + 4)
    frame = b"\x10\x00\x00\x9d\x01\x2a\x40\x01\xf0\x00" if key else b"\x11\x02\x03\x04"
    return bytes([first, time << 3, 0x90, 0xE0, 0x80 | picture >> 8, picture & 255, picture >> 2 & 255, layer]) + frame


STRUCTURE = bytes.fromhex("c7123480e11ea91140810c09fc077c")
seed("layers", "dependency_descriptor", datagrams(STRUCTURE, b"\xc8\x12\x35", b"\x49\x12\x36"))
seed("layers", "encodings", datagrams(*(
    vp8(turn % 3, 1, turn % 3, 200 + turn, (0, 0xA0, 0x40, 0x80)[turn // 3 % 4], turn < 3 or turn % 40 < 3, turn % 17 == 5)
    for turn in range(200))))
seed("layers", "picture_ids_that_jump", datagrams(*(
    vp8(0, (1, 3, -2, 1)[turn % 4], 4, turn * 7919 & 0x7FFF, 0x80 * (turn % 2), turn % 30 == 0) for turn in range(120))))
seed("layers", "vp9", datagrams(*(
    bytes([5, 1 | (turn // 3 % 2) << 3, 0xAC | 0x40 * (turn > 2), 0x90, turn // 3, (turn % 3) << 1, turn]) + b"\x82\x49\x83\x42" + bytes(9)
    for turn in range(90))))
