//! Damage to a store's files, and what a store of damaged files may do: answer rightly, or say an error.

use std::sync::Arc;

use conveyor_base::{Fault, fault};
use conveyor_store::{Backends, Commit, check, open, repair};
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

use super::filled::{Answers, Files, PAGE, commit, everything, on_disk, options};

/// One way in which bytes come to be others.
pub fn damage(rng: &mut ChaCha8Rng, files: &mut Files) -> String {
    let kinds = ["state.redb", "journal-", "history-"];
    let kind = *kinds.choose(rng).unwrap();
    let names: Vec<String> = files.files.keys().filter(|name| name.starts_with(kind)).cloned().collect();
    let name = names.choose(rng).unwrap().clone();
    let bytes = files.files.get_mut(&name).unwrap();
    let pages = bytes.len() / PAGE;
    let (what, count) = match rng.random_range(0..10) {
        0 | 1 => ("bit", 1),
        2 => ("bits", 20),
        3 => ("bits", 100),
        4 => ("run", 1),
        5 => ("blank page", 1),
        6 => ("blank sector", 1),
        7 => ("cut", 1),
        8 => ("lost sector", 1),
        _ => ("swap", 1),
    };
    let mut at = 0;
    for _ in 0..count {
        at = rng.random_range(0..bytes.len());
        match what {
            "bit" | "bits" => bytes[at] ^= 1 << rng.random_range(0..8),
            "run" => {
                let end = (at + rng.random_range(1..5_000)).min(bytes.len());
                rng.fill_bytes(&mut bytes[at..end]);
            }
            "lost sector" => files.lost_sector = Some((name.clone(), at)),
            "blank page" => bytes[at / PAGE * PAGE..][..PAGE].fill(0),
            "blank sector" => bytes[at / 512 * 512..][..512].fill(0),
            "cut" if rng.random_range(0..2) == 0 => bytes.truncate(at),
            "cut" => bytes.truncate(at / PAGE * PAGE),
            _ => {
                let other = rng.random_range(0..pages);
                let (one, other) = ((at / PAGE).min(other), (at / PAGE).max(other));
                if one < other {
                    let (front, back) = bytes.split_at_mut(other * PAGE);
                    front[one * PAGE..][..PAGE].swap_with_slice(&mut back[..PAGE]);
                }
            }
        }
    }
    format!("{name}: {what} at {at}")
}

/// How a store of damaged files behaved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Behaviour {
    /// The damage lay where nothing is.
    Harmless,
    SomeErrors,
    Refused,
}

fn is_told(fault: &Fault, at: &str) {
    let text = fault::chain(fault);
    assert!(matches!(fault, Fault::Damaged { .. }) || text.contains("the store stopped"), "{at}: {text}");
    assert!(text.contains("check --repair") && (text.contains(".redb") || text.contains("journal")), "{at}: {text}");
}

/// Compares what is answered with the truth. Says how many answers were errors.
fn compare(found: &Answers, truth: &Answers, at: &str) -> usize {
    let mut errors = 0;
    for (question, answer) in found {
        match (answer, &truth[question]) {
            (Ok(found), Ok(right)) => assert_eq!(found, right, "{at}: WRONG: {question}"),
            (Err(fault), _) => {
                is_told(fault, at);
                errors += 1;
            }
            (_, Err(fault)) => panic!("{at}: the truth has an error: {fault}"),
        }
    }
    errors
}

pub fn behave(files: &Files, truth: &Answers, at: &str) -> Behaviour {
    let disk = on_disk(files);
    let backends: Arc<dyn Backends> = Arc::new(on_disk(files));
    let clean = check(&backends).is_ok_and(|report| report.is_clean());
    let (writer, reader) = match open(options(&disk)) {
        Ok((writer, reader)) => (writer, reader.on_this_thread()),
        Err(fault) => {
            is_told(&fault, at);
            assert!(!clean, "{at}: a check finds nothing, and it cannot be opened");
            return Behaviour::Refused;
        }
    };
    writer.scrub();
    let scrubbed = reader.damages();
    let errors = compare(&everything(&reader), truth, at);
    assert!(errors == 0 || !scrubbed.is_empty(), "{at}: {errors} errors, and a scrub finds nothing");
    assert!(errors == 0 || !clean, "{at}: {errors} errors, and a check finds nothing");
    // It goes on, or says why not.
    let mut new = Commit::new();
    new.put_item("new", "k", "{}");
    let stored = writer.commit_blocking(new).map(|()| writer.checkpoint());
    let again = compare(&everything(&reader), truth, at);
    assert!(again >= errors, "{at}: an error went away: {errors}, {again}");
    drop((writer, reader));
    if let (Ok(_), Ok((_writer, reader))) = (&stored, open(options(&disk))) {
        let reader = reader.on_this_thread();
        compare(&everything(&reader), truth, at);
        assert!(!matches!(reader.item("new", "k"), Ok(None)), "{at}: what was acknowledged is lost");
    }
    if errors == 0 { Behaviour::Harmless } else { Behaviour::SomeErrors }
}

/// What came of a repair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mended {
    Whole,
    /// What is gone was named.
    InPart,
    /// The file's head is gone, in both copies.
    NotAtAll,
}

/// A repair leaves a store that answers everything: as before, or not at all where it said so.
pub fn mend(files: &Files, truth: &Answers, at: &str) -> Mended {
    let disk = on_disk(files);
    let backends: Arc<dyn Backends> = Arc::new(disk.clone());
    let done = match repair(&backends) {
        Ok(done) => done,
        Err(fault) => {
            let text = fault::chain(&fault);
            assert!(text.contains("nothing of") && text.contains("backup"), "{at}: {text}");
            return Mended::NotAtAll;
        }
    };
    // What leads to a definition that is gone stays a problem.
    let clean = done.report.is_clean();
    assert!(clean || done.lost.iter().any(|lost| lost.contains("'revisions'")), "{at}: {done}");
    assert!(done.nothing_to_do || !done.kept.is_empty());
    let (writer, reader) = open(options(&disk)).unwrap_or_else(|e| panic!("{at}: {}", fault::chain(&e)));
    let reader = reader.on_this_thread();
    let lost = done.lost.join("\n");
    // What a batch that is lost had changed is as it was before.
    let earlier = lost.contains("journal");
    for (question, answer) in everything(&reader) {
        let answer = answer.unwrap_or_else(|e| panic!("{at}: {question}: {}", fault::chain(&e)));
        if answer == *truth[&question].as_ref().unwrap() || earlier {
            continue;
        }
        assert!(!lost.is_empty(), "{at}: {question} became {answer}");
        let of = question.split(' ').next().unwrap();
        if of.len() == 36 {
            let gone = matches!(answer.as_str(), "None" | "false" | "[]");
            let named = ["item", "message"].iter().any(|what| question.contains(what))
                || lost.contains(of)
                || lost.contains("rows of the table 'executions' from");
            assert!(gone && named, "{at}: {question} became {answer}, and {lost}");
        }
    }
    commit(&writer, |c| c.put_item("new", "k", "{}"));
    writer.close().unwrap();
    drop(reader);
    assert_eq!(check(&backends).unwrap().is_clean(), clean, "{at}");
    assert_eq!(repair(&backends).unwrap().nothing_to_do, clean);
    if lost.is_empty() { Mended::Whole } else { Mended::InPart }
}
