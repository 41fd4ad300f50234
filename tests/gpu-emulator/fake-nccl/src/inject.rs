//! Fault injection: `FAKE_NCCL_FAIL=rank:op:action`, several separated by commas.
//!
//! At the op-th operation (from 1; a group counts once) of that rank: `die` ends the process,
//! `stall` never joins, `stall=SECONDS` joins late, `error` fails the communicator.

use std::sync::OnceLock;
use std::time::Duration;

use crate::result::report;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Action {
    Die,
    Stall(Option<Duration>),
    Error,
}

fn parse(text: &str) -> Option<(usize, u64, Action)> {
    let mut parts = text.trim().splitn(3, ':');
    let rank = parts.next()?.parse().ok()?;
    let op = parts.next()?.parse().ok()?;
    let action = match parts.next()? {
        "die" => Action::Die,
        "stall" => Action::Stall(None),
        "error" => Action::Error,
        other => {
            let seconds = other.strip_prefix("stall=")?.parse().ok()?;
            Action::Stall(Some(Duration::try_from_secs_f64(seconds).ok()?))
        }
    };
    Some((rank, op, action))
}

/// What to do at the op-th operation (from 1) of a rank.
pub(crate) fn action(rank: usize, op: u64) -> Option<Action> {
    static RULES: OnceLock<Vec<(usize, u64, Action)>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let text = std::env::var("FAKE_NCCL_FAIL").unwrap_or_default();
        let entries = text.split(',').filter(|e| !e.trim().is_empty());
        entries
            .filter_map(|entry| {
                let rule = parse(entry);
                if rule.is_none() {
                    report!("FAKE_NCCL_FAIL entry `{entry}` not understood");
                }
                rule
            })
            .collect()
    });
    rules.iter().find(|r| r.0 == rank && r.1 == op).map(|r| r.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert_eq!(parse("1:3:die"), Some((1, 3, Action::Die)));
        assert_eq!(parse("0:1:stall"), Some((0, 1, Action::Stall(None))));
        let late = Action::Stall(Some(Duration::from_millis(500)));
        assert_eq!(parse("0:1:stall=0.5"), Some((0, 1, late)));
        assert_eq!(parse("0:1:sing"), None);
    }
}
