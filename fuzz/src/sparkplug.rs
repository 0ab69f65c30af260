//! Sparkplug B: messages of edge nodes, one after the other. Each is a byte for its topic, two for its length, and its
//! payload.

use std::time::Duration;

use decode::mapping::{Message, REFUSED_MAX, Rows, Rule, RuleOptions};
use decode::sparkplug::Host;
use model::TableBatch;

use crate::memory::within;
use crate::support::assert_sound;

const TOPICS: [&str; 10] = [
    "spBv1.0/g/NBIRTH/n",
    "spBv1.0/g/NDATA/n",
    "spBv1.0/g/DBIRTH/n/d",
    "spBv1.0/g/DDATA/n/d",
    "spBv1.0/g/DDEATH/n/d",
    "spBv1.0/g/NDEATH/n",
    "spBv1.0/g/NCMD/n",
    "spBv1.0/STATE/h",
    "spBv1.0/g/NDATA/other",
    "spBv1.0/g/NBIRTH/other",
];

thread_local! {
    static RULE: Rule = Rule::compile(&RuleOptions {
        topics: vec!["spBv1.0/#".into()],
        data_format: "sparkplug_b".into(),
        ..RuleOptions::default()
    })
    .expect("a rule of Sparkplug");
}

/// All messages, to one host.
pub fn check(mut bytes: &[u8]) {
    let mut host = Host::default();
    let mut at = 0;
    while let Some((&[which, high, low], rest)) = bytes.split_first_chunk() {
        let (payload, behind) = rest.split_at(usize::from(u16::from_be_bytes([high, low])).min(rest.len()));
        bytes = behind;
        at += 40;
        let message = Message {
            topic: TOPICS[usize::from(which) % TOPICS.len()],
            payload,
            user_properties: &[],
            now_us: 9_000_000,
        };
        let mut rows = Rows::new("public");
        // A value of a template takes a few bytes, and its column has the names above it.
        let heard = within((64 << 10) + 2048 * payload.len(), || {
            RULE.with(|rule| rule.hear(&mut host, &message, Duration::from_secs(at), &mut rows))
        });
        assert!(heard.mapped.refused.len() <= REFUSED_MAX);
        assert!(heard.mapped.refused.iter().all(|refused| refused.reason.len() < 1000), "{heard:?}");
        let len = rows.len() as usize;
        let batches = rows.finish();
        batches.iter().for_each(assert_sound);
        assert_eq!(batches.iter().map(TableBatch::len).sum::<usize>(), len);
    }
}
