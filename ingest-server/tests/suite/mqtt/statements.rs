//! The statements of the standards that the listener claims to keep, by their numbers: `docs/mqtt.md` lists them.
//!
//! A case is a name with numbers, and a talk: lines `>` are sent, lines `<` are what comes back, packet by packet;
//! `closed` is the end of the connection. `v311`, `v5` begin with an accepted connection of that version.

use super::{Setup, bytes};

/// 3.1 and 3.1.1. Numbers are those of 3.1.1.
const V3: &[(&str, &str)] = &[
    ("3.1 is spoken", "> 10 <\"MQIsdp\" 03 02 003c \"c\">\n< 20 02 00 00\n> c0 00\n< d0 00"),
    ("MQTT-3.1.0-1: the first packet is CONNECT", "> c0 00\nclosed"),
    ("MQTT-3.1.0-1: not PUBLISH either", "> 30 <\"lp/x\" 'm v=1'>\nclosed"),
    ("MQTT-3.1.0-2: CONNECT comes once", "v311\n> 10 <\"MQTT\" 04 02 003c \"c\">\nclosed"),
    ("MQTT-3.1.2-1: another protocol", "> 10 <\"HTTP\" 04 02 003c \"c\">\nclosed"),
    ("MQTT-3.1.2-2: another level is refused with 1", "> 10 <\"MQTT\" 03 02 003c \"c\">\n< 20 02 00 01\nclosed"),
    ("MQTT-3.1.2-3: the reserved flag", "> 10 <\"MQTT\" 04 03 003c \"c\">\nclosed"),
    ("MQTT-3.1.2-13: no will, so no QoS of it", "> 10 <\"MQTT\" 04 0a 003c \"c\">\nclosed"),
    ("MQTT-3.1.2-14: a will with QoS 3", "> 10 <\"MQTT\" 04 1e 003c \"c\" \"w\" \"x\">\nclosed"),
    ("MQTT-3.1.2-15: no will, so none retained", "> 10 <\"MQTT\" 04 22 003c \"c\">\nclosed"),
    ("MQTT-3.1.2-22: a password without a name", "> 10 <\"MQTT\" 04 42 003c \"c\" \"p\">\nclosed"),
    ("a name and a password are taken", "> 10 <\"MQTT\" 04 c2 003c \"c\" \"n\" \"p\">\n< 20 02 00 00"),
    ("MQTT-3.1.3-6: an empty id is given one", "> 10 <\"MQTT\" 04 02 003c \"\">\n< 20 02 00 00\n> c0 00\n< d0 00"),
    ("MQTT-3.1.3-8: but not with a session", "> 10 <\"MQTT\" 04 00 003c \"\">\n< 20 02 00 02\nclosed"),
    ("3.1 has no empty ids", "> 10 <\"MQIsdp\" 03 02 003c \"\">\n< 20 02 00 02\nclosed"),
    ("MQTT-3.1.4-1: CONNECT with bytes behind it", "> 10 <\"MQTT\" 04 02 003c \"c\" 00>\nclosed"),
    ("MQTT-3.1.4-1: CONNECT cut short", "> 10 <\"MQTT\" 04 82 003c \"c\">\nclosed"),
    ("MQTT-3.1.4-1: CONNECT of more than 4 KiB", "> 10 a0 20\nclosed"),
    ("MQTT-3.1.4-4: CONNACK 0", "> 10 <\"MQTT\" 04 02 003c \"c\">\n< 20 02 00 00"),
    ("MQTT-3.2.2-1, MQTT-3.2.2-3: no session was present", "> 10 <\"MQTT\" 04 00 003c \"c\">\n< 20 02 00 00"),
    ("MQTT-1.5.3-1: ids are UTF-8", "> 10 <\"MQTT\" 04 02 003c 0002 c328>\nclosed"),
    ("MQTT-1.5.3-1: surrogates are not", "v311\n> 30 <0003 eda080 'x'>\nclosed"),
    ("MQTT-1.5.3-2: no U+0000 in texts", "v311\n> 30 <0003 610062 'x'>\nclosed"),
    ("MQTT-2.2.2-2: flags of PINGREQ", "v311\n> c1 00\nclosed"),
    ("MQTT-2.2.2-2: flags of PUBACK", "v311\n> 42 02 0001\nclosed"),
    ("there is no packet of type 0", "v311\n> 00 00\nclosed"),
    ("there is no packet of type 15", "v311\n> f0 00\nclosed"),
    ("CONNACK is for servers", "v311\n> 20 02 00 00\nclosed"),
    ("a length of five bytes", "v311\n> 30 ffffffff01\nclosed"),
    ("a packet of more than 1 MiB", "v311\n> 30 81808001\nclosed"),
    ("MQTT-2.3.1-1: PUBLISH with identifier 0", "v311\n> 32 <\"lp/x\" 0000 'm v=1'>\nclosed"),
    ("MQTT-2.3.1-1: SUBSCRIBE with identifier 0", "v311\n> 82 <0000 \"a\" 00>\nclosed"),
    ("MQTT-2.3.1-6, MQTT-3.3.4-1, MQTT-4.3.2-2: PUBACK", "v311\n> 32 <\"lp/x\" 1234 'm v=1 1'>\n< 40 02 12 34"),
    (
        "MQTT-4.3.3-2, MQTT-2.3.1-6: PUBREC, PUBREL, PUBCOMP",
        "v311\n> 34 <\"lp/x\" 1234 'm v=1 1'>\n< 50 02 12 34\n> 62 02 1234\n< 70 02 12 34",
    ),
    ("PUBCOMP for a PUBREL that is not known", "v311\n> 62 02 0007\n< 70 02 00 07"),
    ("MQTT-3.3.1-2: DUP with QoS 0", "v311\n> 38 <\"lp/x\" 'm v=1'>\nclosed"),
    ("MQTT-3.3.1-4: QoS 3", "v311\n> 36 <\"lp/x\" 0001 'm v=1'>\nclosed"),
    ("MQTT-3.3.2-2, MQTT-4.7.1-1: a wildcard in a topic", "v311\n> 32 <\"lp/+\" 0001 'm v=1'>\nclosed"),
    ("MQTT-4.7.3-1: an empty topic", "v311\n> 32 <\"\" 0001 'm v=1'>\nclosed"),
    ("MQTT-3.3.5-2: what is not allowed is acknowledged", "v311\n> 32 <\"$SYS/x\" 0001 'm v=1'>\n< 40 02 00 01"),
    ("a reading to be retained is a reading", "v311\n> 33 <\"lp/x\" 0001 'm v=1 1'>\n< 40 02 00 01"),
    ("MQTT-3.6.1-1: flags of PUBREL", "v311\n> 60 02 0001\nclosed"),
    ("MQTT-3.8.1-1: flags of SUBSCRIBE", "v311\n> 80 <0001 \"a\" 00>\nclosed"),
    ("MQTT-3.8.3-3: SUBSCRIBE without a filter", "v311\n> 82 02 0001\nclosed"),
    ("MQTT-3-8.3-4: reserved bits of the QoS", "v311\n> 82 <0001 \"a\" 04>\nclosed"),
    ("MQTT-3-8.3-4: QoS 3", "v311\n> 82 <0001 \"a\" 03>\nclosed"),
    ("MQTT-4.7.1-2: # stands at the end", "v311\n> 82 <0001 \"a/#/b\" 00>\nclosed"),
    ("MQTT-4.7.1-3: + stands alone", "v311\n> 82 <0001 \"a+\" 00>\nclosed"),
    (
        "MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-5, MQTT-3.9.3-1, MQTT-3.9.3-2: SUBACK, QoS 1 at most, refusals 0x80",
        "v311\n> 82 <1234 \"eden/v1/c/cmd/#\" 02 \"#\" 01 \"eden/v1/c/cmd/x\" 00 \"eden/v1/d/cmd/#\" 00>\n\
         < 90 06 12 34 01 80 00 80",
    ),
    (
        "3.1 has no code for a refusal: QoS 0 is granted, and nothing comes",
        "> 10 <\"MQIsdp\" 03 02 003c \"c\">\n< 20 02 00 00\n> 82 <0001 \"#\" 01>\n< 90 03 00 01 00",
    ),
    ("MQTT-3.10.1-1: flags of UNSUBSCRIBE", "v311\n> a0 <0001 \"a\">\nclosed"),
    ("MQTT-3.10.3-2: UNSUBSCRIBE without a filter", "v311\n> a2 02 0001\nclosed"),
    ("MQTT-3.10.4-4, MQTT-3.10.4-5, MQTT-2.3.1-7: UNSUBACK", "v311\n> a2 <1234 \"a\" \"b\">\n< b0 02 12 34"),
    ("MQTT-3.12.4-1: PINGRESP", "v311\n> c0 00\n< d0 00"),
    ("PINGREQ has no body", "v311\n> c0 01 00\nclosed"),
    ("MQTT-3.14.1-1: flags of DISCONNECT", "v311\n> e1 00\nclosed"),
    ("DISCONNECT has no body", "v311\n> e0 01 00\nclosed"),
    ("DISCONNECT ends the connection", "v311\n> e0 00\nclosed"),
    ("PUBREC: nothing of QoS 2 is ever sent", "v311\n> 50 02 0001\nclosed"),
    ("PUBACK for what was never sent", "v311\n> 40 02 0001\n> c0 00\n< d0 00"),
    ("what follows CONNECT at once is dealt with", "> 10 <\"MQTT\" 04 02 003c \"c\"> c0 00\n< 20 02 00 00\n< d0 00"),
    ("a length that is not the shortest is taken", "v311\n> c0 8000\n< d0 00"),
];

/// Version 5, with its numbers.
const V5: &[(&str, &str)] = &[
    (
        "MQTT-3.1.4-5, MQTT-3.2.2-2: CONNACK: Receive Maximum, Maximum Packet Size, Topic Alias Maximum, what is not there",
        "> 10 <\"MQTT\" 05 02 003c {} \"c\">\n< 20 <00 00 {21 0080 27 00100000 22 0020 29 00 2a 00}>",
    ),
    (
        "a session is kept as long as is asked for",
        "> 10 <\"MQTT\" 05 02 003c {11 0000000a} \"c\">\n\
         < 20 <00 00 {21 0080 27 00100000 22 0020 29 00 2a 00}>",
    ),
    (
        "but no longer than a week, which is told",
        "> 10 <\"MQTT\" 05 02 003c {11 ffffffff} \"c\">\n\
         < 20 <00 00 {11 00093a80 21 0080 27 00100000 22 0020 29 00 2a 00}>",
    ),
    (
        "MQTT-3.1.3-6, MQTT-3.1.3-7, MQTT-3.2.2-16: an empty id is given one, which is told",
        "> 10 <\"MQTT\" 05 00 003c {} \"\">\n\
         < 20 3a 00 00 37 21 00 80 27 00 10 00 00 12 00 25 65 64 65 6e 2d ..",
    ),
    ("MQTT-3.1.0-1", "> e0 00\nclosed"),
    ("MQTT-3.1.0-2", "v5\n> 10 <\"MQTT\" 05 02 003c {} \"c\">\n< e0 ?? 82 ..\nclosed"),
    ("MQTT-3.1.2-2", "> 10 <\"MQTT\" 06 02 003c {} \"c\">\n< 20 ?? 00 84 ..\nclosed"),
    ("MQTT-3.1.2-3, MQTT-3.2.2-6, MQTT-3.2.2-7", "> 10 <\"MQTT\" 05 03 003c {} \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-3.1.2-11", "> 10 <\"MQTT\" 05 0a 003c {} \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-3.1.2-12", "> 10 <\"MQTT\" 05 1e 003c {} \"c\" {} \"w\" \"x\">\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-3.1.2-13", "> 10 <\"MQTT\" 05 22 003c {} \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-3.1.2-17", "> 10 <\"MQTT\" 05 82 003c {} \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("a password without a name is allowed in 5", "> 10 <\"MQTT\" 05 42 003c {} \"c\" \"p\">\n< 20 ?? 00 00 .."),
    ("MQTT-3.1.4-1", "> 10 <\"MQTT\" 05 02 003c {} \"c\" 00>\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-4.12.0-1", "> 10 <\"MQTT\" 05 02 003c {15 \"SCRAM\"} \"c\">\n< 20 ?? 00 8c ..\nclosed"),
    ("authentication data alone", "> 10 <\"MQTT\" 05 02 003c {16 \"x\"} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    ("MQTT-4.12.0-7", "v5\n> f0 00\n< e0 ?? 82 ..\nclosed"),
    ("Receive Maximum 0", "> 10 <\"MQTT\" 05 02 003c {21 0000} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    ("Maximum Packet Size 0", "> 10 <\"MQTT\" 05 02 003c {27 00000000} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    ("MQTT-3.1.2-24: a client that cannot take CONNACK", "> 10 <\"MQTT\" 05 02 003c {27 0000000a} \"c\">\nclosed"),
    ("a flag that is 2", "> 10 <\"MQTT\" 05 02 003c {17 02} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    ("a property twice", "> 10 <\"MQTT\" 05 02 003c {21 0001 21 0001} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    (
        "user properties may stand twice",
        "> 10 <\"MQTT\" 05 02 003c {26 \"a\" \"b\" 26 \"a\" \"b\"} \"c\">\n< 20 ?? 00 00 ..",
    ),
    ("a property of another packet", "> 10 <\"MQTT\" 05 02 003c {23 0001} \"c\">\n< 20 ?? 00 82 ..\nclosed"),
    ("a property that does not exist", "> 10 <\"MQTT\" 05 02 003c {7f} \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("properties longer than the packet", "> 10 <\"MQTT\" 05 02 003c 7f \"c\">\n< 20 ?? 00 81 ..\nclosed"),
    ("MQTT-1.5.4-1", "v5\n> 30 <0002 c328 {} 'x'>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-1.5.4-2, MQTT-4.7.3-2", "v5\n> 30 <0003 610062 {} 'x'>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-1.5.5-1: the remaining length", "v5\n> c0 8000\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-1.5.5-1: a length of properties", "v5\n> 30 <\"lp/x\" 8000 'x'>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-2.1.3-1", "v5\n> c1 00\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-2.2.1-3", "v5\n> 32 <\"lp/x\" 0000 {} 'm v=1'>\n< e0 ?? 82 ..\nclosed"),
    ("MQTT-2.2.1-5, MQTT-4.3.2-4", "v5\n> 32 <\"lp/x\" 1234 {} 'm v=1 1'>\n< 40 02 12 34"),
    (
        "MQTT-4.3.2-5: after PUBACK the identifier is free, DUP or not",
        "v5\n> 32 <\"lp/x\" 0001 {} 'm v=1 1'>\n< 40 02 00 01\n> 3a <\"lp/x\" 0001 {} 'm v=2 2'>\n< 40 02 00 01",
    ),
    (
        "MQTT-4.3.3-8, MQTT-4.3.3-11, MQTT-4.3.3-12",
        "v5\n> 34 <\"lp/x\" 1234 {} 'm v=1 1'>\n< 50 02 12 34\n> 62 02 1234\n< 70 02 12 34\n\
         > 34 <\"lp/x\" 1234 {} 'm v=2 2'>\n< 50 02 12 34\n> 62 03 1234 00\n< 70 02 12 34",
    ),
    (
        "MQTT-4.3.3-10: PUBREC again until PUBREL",
        "v5\n> 34 <\"lp/x\" 0001 {} 'm v=1 1'>\n< 50 02 00 01\n> 3c <\"lp/x\" 0001 {} 'm v=1 1'>\n< 50 02 00 01\n\
         > 62 02 0001\n< 70 02 00 01",
    ),
    ("PUBREL that is not known", "v5\n> 62 02 0007\n< 70 03 00 07 92"),
    ("MQTT-3.3.1-2", "v5\n> 38 <\"lp/x\" {} 'm v=1'>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.3.1-4", "v5\n> 36 <\"lp/x\" 0001 {} 'm v=1'>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.3.2-2, MQTT-4.7.0-1", "v5\n> 32 <\"lp/#\" 0001 {} 'm v=1'>\n< e0 ?? 90 ..\nclosed"),
    ("MQTT-4.7.3-1: a topic", "v5\n> 32 <\"\" 0001 {} 'm v=1'>\n< e0 ?? 82 ..\nclosed"),
    (
        "MQTT-3.3.2-12: topic aliases up to the maximum, with a topic and without one, and with another one",
        "v5\n> 32 <\"lp/x\" 0001 {23 0001} 'm v=1 1'>\n< 40 02 00 01\n> 32 <\"\" 0002 {23 0001} 'm v=2 2'>\n< 40 02 00 02\n\
         > 32 <\"lp/y\" 0003 {23 0020} 'm v=3 3'>\n< 40 02 00 03\n> 32 <\"\" 0004 {23 0020} 'm v=4 4'>\n< 40 02 00 04\n\
         > 32 <\"$x\" 0005 {23 0001} 'm v=5 5'>\n< 40 03 00 05 87\n> 32 <\"\" 0006 {23 0001} 'm v=6 6'>\n< 40 03 00 06 87",
    ),
    ("MQTT-3.3.2-8: topic alias 0", "v5\n> 32 <\"lp/x\" 0001 {23 0000} 'm v=1'>\n< e0 ?? 94 ..\nclosed"),
    (
        "MQTT-3.3.2-9: a topic alias above the maximum",
        "v5\n> 32 <\"lp/x\" 0001 {23 0021} 'm v=1'>\n< e0 ?? 94 ..\nclosed",
    ),
    ("an alias that no topic has", "v5\n> 32 <\"\" 0001 {23 0001} 'm v=1'>\n< e0 ?? 82 ..\nclosed"),
    (
        "MQTT-3.3.2-7: an alias ends with its connection",
        "v5\n> 32 <\"lp/x\" 0001 {23 0001} 'm v=1 1'>\n< 40 02 00 01\nv5\n> 32 <\"\" 0001 {23 0001} 'm v=1'>\n< e0 ?? 82 ..\nclosed",
    ),
    (
        "properties before and behind an alias",
        "v5\n> 32 <\"lp/x\" 0001 {02 00000009 23 0001 03 \"t\"} 'm v=1 1'>\n< 40 02 00 01\n\
         > 32 <\"\" 0001 {26 \"a\" \"b\" 23 0001 02 00000009} 'm v=1 1'>\n< 40 02 00 01",
    ),
    ("MQTT-3.3.2-14", "v5\n> 32 <\"lp/x\" 0001 {08 \"a/#\"} 'm v=1'>\n< e0 ?? 82 ..\nclosed"),
    ("MQTT-3.3.4-6", "v5\n> 32 <\"lp/x\" 0001 {0b 01} 'm v=1'>\n< e0 ?? 82 ..\nclosed"),
    ("a reading to be retained is a reading", "v5\n> 33 <\"lp/x\" 0001 {} 'm v=1 1'>\n< 40 02 00 01"),
    (
        "all properties that a message may have; an expiry of 0 too",
        "v5\n> 32 <\"lp/x\" 0001 {01 01 02 00000000 03 \"t\" 08 \"r\" 09 \"c\" 26 \"a\" \"b\" 26 \"a\" \"b\"} 'm v=1 1'>\n\
         < 40 02 00 01",
    ),
    ("MQTT-3.2.2-15", "v5\n> 30 81808001\n< e0 ?? 95 ..\nclosed"),
    ("MQTT-3.4.2-1: a topic of the server's own", "v5\n> 32 <\"$SYS/x\" 0001 {} 'm v=1'>\n< 40 03 00 01 87"),
    ("MQTT-3.4.2-1: nobody listens", "v5\n> 32 <\"eden/v1/d/cmd/x\" 0001 {} 'go'>\n< 40 03 00 01 10"),
    ("a refused line is told", "v5\n> 32 <\"lp/x\" 0001 {} 'bad'>\n< 40 ?? 00 01 00 .."),
    (
        "MQTT-3.1.2-29: but not to whoever does not ask",
        "> 10 <\"MQTT\" 05 02 003c {17 00} \"c\">\n< 20 ?? 00 00 ..\n> 32 <\"lp/x\" 0001 {} 'bad'>\n< 40 02 00 01",
    ),
    (
        "MQTT-3.4.2-2, MQTT-3.1.2-24: nor where it does not fit",
        "> 10 <\"MQTT\" 05 02 003c {27 00000028} \"c\">\n< 20 ?? 00 00 ..\n> 32 <\"lp/x\" 0001 {} 'bad'>\n< 40 02 00 01",
    ),
    ("MQTT-3.6.1-1", "v5\n> 60 02 0001\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.6.2-1", "v5\n> 62 03 0001 55\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.8.1-1", "v5\n> 80 <0001 {} \"a\" 00>\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.8.3-2", "v5\n> 82 <0001 {}>\n< e0 ?? 82 ..\nclosed"),
    ("MQTT-3.8.3-4", "v5\n> 82 <0001 {} \"$share/g/a\" 04>\n< e0 ?? 82 ..\nclosed"),
    ("MQTT-3.8.3-5", "v5\n> 82 <0001 {} \"a\" 40>\n< e0 ?? 81 ..\nclosed"),
    ("Retain Handling 3", "v5\n> 82 <0001 {} \"a\" 30>\n< e0 ?? 81 ..\nclosed"),
    ("Subscription Identifiers", "v5\n> 82 <0001 {0b 01} \"a\" 00>\n< e0 ?? a1 ..\nclosed"),
    (
        "MQTT-3.8.4-1, MQTT-3.8.4-2, MQTT-3.8.4-5, MQTT-3.8.4-6, MQTT-3.8.4-7, MQTT-3.9.3-1, MQTT-3.9.3-2",
        "v5\n> 82 <1234 {} \"eden/v1/c/cmd/#\" 02 \"#\" 01 \"$share/g/eden/v1/c/cmd/#\" 01 \"eden/v1/c/cmd/x\" 00>\n\
         < 90 <1234 {} 01 87 9e 00>",
    ),
    ("MQTT-4.7.1-1", "v5\n> 82 <0001 {} \"a/#/b\" 00>\n< e0 ?? 8f ..\nclosed"),
    ("MQTT-4.7.1-2", "v5\n> 82 <0001 {} \"a/b+\" 00>\n< e0 ?? 8f ..\nclosed"),
    ("MQTT-4.7.3-1: a filter", "v5\n> 82 <0001 {} \"\" 00>\n< e0 ?? 8f ..\nclosed"),
    ("MQTT-3.10.1-1", "v5\n> a0 <0001 {} \"a\">\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.10.3-2", "v5\n> a2 <0001 {}>\n< e0 ?? 82 ..\nclosed"),
    (
        "MQTT-3.10.4-1, MQTT-3.10.4-4, MQTT-3.10.4-5, MQTT-3.10.4-6, MQTT-3.11.3-1, MQTT-3.11.3-2, MQTT-2.2.1-6",
        "v5\n> 82 <0001 {} \"eden/v1/c/cmd/#\" 00>\n< 90 <0001 {} 00>\n\
         > a2 <1234 {} \"eden/v1/c/cmd/+\" \"eden/v1/c/cmd/#\" \"eden/v1/c/cmd/#\">\n< b0 <1234 {} 11 00 11>",
    ),
    ("MQTT-3.12.4-1", "v5\n> c0 00\n< d0 00"),
    ("MQTT-3.14.1-1", "v5\n> e1 00\n< e0 ?? 81 ..\nclosed"),
    ("MQTT-3.14.2-1", "v5\n> e0 01 03\n< e0 ?? 81 ..\nclosed"),
    ("a session expiry out of nothing", "v5\n> e0 <00 {11 00000001}>\n< e0 ?? 82 ..\nclosed"),
    ("DISCONNECT", "v5\n> e0 00\nclosed"),
    ("DISCONNECT with a reason and properties", "v5\n> e0 <04 {1f \"why\" 26 \"a\" \"b\"}>\nclosed"),
    ("MQTT-4.13.1-1: bytes behind the end", "v5\n> 62 <0001 00 {} 00>\n< e0 ?? 81 ..\nclosed"),
    ("PUBREC: nothing of QoS 2 is ever sent", "v5\n> 50 02 0001\n< e0 ?? 82 ..\nclosed"),
    ("PUBREL before its PUBREC", "v5\n> 34 <\"lp/x\" 0001 {} 'm v=1 1'> 62 02 0001\n< e0 ?? 82 ..\nclosed"),
    (
        "an identifier in use for another message",
        "v5\n> 32 <\"lp/x\" 0001 {} 'm v=1 1'> 32 <\"lp/x\" 0001 {} 'm v=2 2'>\n< e0 ?? 82 ..\nclosed",
    ),
];

fn check(setup: &Setup, name: &str, talk: &str) {
    let mut raw = setup.dial();
    for line in talk.lines() {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match line.split_once(' ') {
            None if line == "v311" => raw = setup.v311("c"),
            None if line == "v5" => raw = setup.v5("c"),
            None if line == "closed" => raw.expect_closed(),
            Some((">", packets)) => raw.send(packets),
            Some(("<", packet)) => raw.expect(packet),
            _ => panic!("what is {line:?}?"),
        }));
        if let Err(panic) = result {
            let what = panic.downcast_ref::<String>().map_or("", |text| text);
            panic!("{name}\n{line}\n{what}");
        }
    }
}

#[test]
fn packets_of_version_3_are_answered_as_the_standard_says() {
    let setup = Setup::start();
    V3.iter().for_each(|(name, talk)| check(&setup, name, talk));
}

#[test]
fn packets_of_version_5_are_answered_as_the_standard_says() {
    let setup = Setup::start();
    V5.iter().for_each(|(name, talk)| check(&setup, name, talk));
    assert!(setup.metric("eden_mqtt_connections_broken_total{reason=\"malformed\"}") > 5);
    assert!(setup.metric("eden_mqtt_connections_refused_total{reason=\"protocol\"}") > 3);
}

/// The packets of all cases, for the hostile test.
pub(super) fn packets() -> Vec<Vec<u8>> {
    let sent =
        |talk: &&str| -> Vec<u8> { talk.lines().filter_map(|line| line.strip_prefix("> ")).flat_map(bytes).collect() };
    V3.iter().chain(V5).map(|(_, talk)| sent(talk)).filter(|bytes| !bytes.is_empty()).collect()
}

/// Every number that a case names stands in the table of `docs/mqtt.md`, and the other way round.
#[test]
fn the_table_in_docs_is_what_the_cases_say() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mqtt.md")).unwrap();
    let numbers = |text: &str| -> std::collections::BTreeSet<String> {
        let mut found = std::collections::BTreeSet::new();
        for part in text.split("MQTT-").skip(1) {
            let number: String = part.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | '-')).collect();
            found.insert(number.trim_end_matches(['.', '-']).to_owned());
        }
        found
    };
    for (cases, heading, others) in [
        (V3, "### MQTT 3.1.1", [super::flow::V3_NUMBERS, super::sessions::V3_NUMBERS]),
        (V5, "### MQTT 5", [super::flow::V5_NUMBERS, super::sessions::V5_NUMBERS]),
    ] {
        let mut said: std::collections::BTreeSet<String> = cases.iter().flat_map(|(name, _)| numbers(name)).collect();
        said.extend(others.into_iter().flat_map(numbers));
        let section = page.split(heading).nth(1).unwrap_or_else(|| panic!("{heading} is missing"));
        let section = section.split("\n#").next().unwrap();
        assert_eq!(numbers(section), said, "{heading}");
    }
}
