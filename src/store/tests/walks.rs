//! Walks over rows: what they see while commits go on, and what is found of a parent's children.

use std::ops::{Bound, ControlFlow};

use super::*;

#[test]
fn a_walk_sees_one_moment_and_keeps_no_commit_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _reader) = opened(Options::at(dir.path()));
    let set = |key: &str, value: &str| commit(&writer, |c| c.put_setting(key, value.as_bytes()));
    let seen = |meanwhile: &dyn Fn(&str)| {
        let mut seen = Vec::new();
        let range = (Bound::Included(&b"w."[..]), Bound::Excluded(&b"w/"[..]));
        let look = |key: &[u8], row: envelope::Sealed<'_>| {
            let key = String::from_utf8_lossy(key).into_owned();
            meanwhile(&key);
            seen.push(format!("{key}={}", String::from_utf8_lossy(row.plain()?)));
            Ok(ControlFlow::Continue(()))
        };
        writer.engine().snapshot().scan(Table::Settings, range, Direction::Forward, look).unwrap();
        seen.join(" ")
    };
    // One row in each of the three places: the state file, what is carried over during the walk, and the newest.
    set("w.a", "1");
    set("w.c", "1");
    writer.checkpoint().unwrap();
    set("w.b", "1");
    set("w.d", "1");
    let walked = seen(&|key| {
        // With a lock held, the first of these would never come back.
        set("w.c", key);
        commit(&writer, |c| c.delete_setting("w.d"));
        set(&format!("{key}x"), "new");
        if key == "w.b" {
            writer.checkpoint().unwrap();
        }
    });
    assert_eq!(walked, "w.a=1 w.b=1 w.c=1 w.d=1");
    assert_eq!(seen(&|_| ()), "w.a=1 w.ax=new w.b=1 w.bx=new w.c=w.d w.cx=new w.dx=new");
}

#[test]
fn children_are_found_until_their_end_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let id = ExecutionId::generate(Timestamp(1));
    let start = starting(id, "one");
    let child = Child { id, parent: start.header.as_ref().unwrap().parent.clone().unwrap() };
    commit(&writer, |c| c.step(None, &start));
    writer.checkpoint().unwrap();
    let running = after(&start);
    assert_eq!(reader.child_of(child.parent.execution, child.parent.attempt).unwrap(), Some(child.clone()));
    assert_eq!(reader.children_of(child.parent.execution).unwrap(), std::slice::from_ref(&child));
    assert_eq!(reader.children().map(Result::unwrap).collect::<Vec<_>>(), [child]);
    commit(&writer, |c| c.step(Some(&running), &ending(&running)));
    assert_eq!(reader.children().count(), 1);
    commit(&writer, |c| c.delivered(&running.header));
    assert_eq!((reader.children().count(), reader.deliveries().count()), (0, 0));
}
