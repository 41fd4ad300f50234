//! Streams of elements: what TensorFlow gives for the same, and that they go on where they stopped.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringstep::data::stream::{Dataset, Padding, Position, Remainder, Reshuffle, Row, Size};
use ringstep::data::{DataError, Table, Targets};
use serde::de::DeserializeOwned;

use crate::golden;

/// TensorFlow's result of that name.
fn expected<T: DeserializeOwned>(name: &str) -> T {
    golden::read(&["tfdata", name])
}

fn all<T>(dataset: &Dataset<T>, epoch: u64) -> Vec<T> {
    dataset.iter(epoch).collect::<Result<_, _>>().unwrap()
}

fn range(end: u64) -> Dataset<u64> {
    Dataset::range(0..end)
}

/// The size of this is not known before it is read.
fn unknown(end: u64) -> Dataset<u64> {
    Dataset::generate(move || (0..end).map(Ok))
}

#[test]
fn elements_are_those_of_tensorflow() {
    use Remainder::{Drop, Keep};
    for range in [range, unknown] {
        let batches = |name: &str, dataset: Dataset<Vec<u64>>| {
            assert_eq!(all(&dataset, 0), expected::<Vec<Vec<u64>>>(name), "{name}");
        };
        batches("batch", range(7).batch(3, Keep));
        batches("batch_drop", range(7).batch(3, Drop));
        batches("repeat_batch", range(5).repeat(2).batch(4, Keep));
        batches("batch_repeat", range(5).batch(4, Keep).repeat(2));
        batches("shard_after_batch", range(8).batch(2, Keep).shard(2, 1));

        let numbers = |name: &str, dataset: Dataset<u64>| {
            assert_eq!(all(&dataset, 0), expected::<Vec<u64>>(name), "{name}");
        };
        numbers("shard_3_1", range(10).shard(3, 1));
        numbers("skip_take", range(10).skip(3).take(4));
        numbers("concat", range(3).concatenate(range(2)));
        numbers("filter", range(10).filter(|number| number % 3 == 0));
        numbers("shuffle_buf1", range(5).shuffle(1, 7, Reshuffle::EachEpoch));
        let six = |number| Dataset::from(vec![number; 6]);
        numbers("interleave_c2_b1", range(6).skip(1).interleave(2, 1, six));

        let pairs = all(&range(3).zip(range(5)), 0);
        assert_eq!(pairs, expected::<Vec<(u64, u64)>>("zip"));
    }
    assert_eq!(range(7).batch(3, Keep).size(), Size::Known(3));
    assert_eq!(range(7).batch(3, Drop).size(), Size::Known(2));
    assert_eq!(range(7).repeat_endlessly().size(), Size::Endless);
    assert_eq!(range(7).filter(|_| true).size(), Size::Unknown);
}

#[test]
fn what_has_no_golden_numbers_does_what_it_says() {
    let flat = range(4).flat_map(|count| Dataset::from(vec![count; count as usize]));
    assert_eq!(all(&flat, 0), [1, 2, 2, 3, 3, 3]);
    // Blocks of two; the place of what has ended goes to the next at its next turn.
    let sizes = Dataset::from(vec![(0, 3), (1, 1), (2, 2), (3, 1)]);
    let blocks = sizes.interleave(2, 2, |(first, count)| Dataset::from(vec![first; count]));
    assert_eq!(all(&blocks, 0), [0, 0, 1, 0, 2, 2, 3]);
    assert_eq!(
        all(&range(3).map(|x| x * 2).enumerate(), 0),
        [(0, 0), (1, 2), (2, 4)]
    );
    assert_eq!(range(2).repeat_endlessly().take(5).size(), Size::Known(5));
    assert_eq!(
        all(&range(2).repeat_endlessly().take(5), 0),
        [0, 1, 0, 1, 0]
    );
    // Nothing, for ever, ends.
    assert_eq!(
        all(&unknown(9).filter(|_| false).repeat_endlessly(), 0),
        [0; 0]
    );

    let lists = Dataset::from(vec![vec![1], vec![2, 3], vec![], vec![4]]);
    let padding = |length| Padding { value: 0, length };
    let padded = |length| {
        lists
            .clone()
            .padded_batch(2, Remainder::Keep, padding(length))
    };
    assert_eq!(
        all(&padded(None), 0),
        [vec![vec![1, 0], vec![2, 3]], vec![vec![0], vec![4]]]
    );
    assert_eq!(all(&padded(Some(3)), 0)[1], [[0, 0, 0], [4, 0, 0]]);
    assert_eq!(
        padded(Some(1))
            .iter(0)
            .next()
            .unwrap()
            .unwrap_err()
            .to_string(),
        "a list of 2 is longer than the 1 that it is to be padded to; cut it before, or leave the \
         length open"
    );
}

#[test]
fn a_shuffle_is_of_everything_or_within_its_window() {
    let shuffled = |buffer, seed| range(50).shuffle(buffer, seed, Reshuffle::EachEpoch);
    let mut orders: Vec<_> = (0..4).map(|epoch| all(&shuffled(50, 7), epoch)).collect();
    orders.push(all(&shuffled(50, 8), 0));
    for (index, order) in orders.iter().enumerate() {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert!(!orders[..index].contains(order), "{index} repeats an order");
    }
    // Read in order or sought in, it is the same; more room than elements changes nothing.
    let read = unknown(50).shuffle(50, 7, Reshuffle::EachEpoch);
    assert_eq!(all(&read, 2), orders[2]);
    assert_eq!(all(&shuffled(1 << 40, 7), 2), orders[2]);
    let never = range(50).shuffle(50, 7, Reshuffle::Never);
    assert_eq!(
        (all(&never, 0), all(&never, 3)),
        (orders[0].clone(), orders[0].clone())
    );
    // Element i is one of the first i + 5.
    let near = all(&shuffled(5, 7), 0);
    assert!(
        (0..).zip(&near).all(|(place, &number)| number < place + 5),
        "{near:?}"
    );
    assert_eq!(
        near,
        all(&unknown(50).shuffle(5, 7, Reshuffle::EachEpoch), 0)
    );
    // Each of six orders of three, about as often as any other.
    let mut counts = std::collections::BTreeMap::new();
    let three = range(3).shuffle(3, 1, Reshuffle::EachEpoch);
    (0..6000).for_each(|epoch| *counts.entry(all(&three, epoch)).or_insert(0) += 1);
    assert_eq!(counts.len(), 6);
    assert!(
        counts.values().all(|count| (850..1150).contains(count)),
        "{counts:?}"
    );
    // Every repetition is an epoch of its own.
    let twice = all(&range(50).shuffle(50, 7, Reshuffle::EachEpoch).repeat(2), 1);
    assert_eq!(twice, [orders[2].clone(), orders[3].clone()].concat());
}

/// A stream that goes on at any place has what the whole one has there.
fn goes_on<T: PartialEq + Debug>(name: &str, dataset: &Dataset<T>) {
    for epoch in [0, 3] {
        let whole = all(dataset, epoch);
        if let Size::Known(size) = dataset.size() {
            assert_eq!(size, whole.len() as u64, "{name}");
        }
        for element in 0..=whole.len() {
            let position = Position {
                epoch,
                element: element as u64,
            };
            let mut rest = dataset.resume(position);
            assert_eq!(rest.position(), position);
            let elements: Vec<_> = rest.by_ref().map(Result::unwrap).collect();
            assert_eq!(elements, whole[element..], "{name} from {position:?}");
            assert_eq!(rest.position().element, whole.len() as u64);
        }
    }
}

#[test]
fn a_stream_goes_on_at_any_element() {
    use Remainder::{Drop, Keep};
    for (name, range) in [("sought", range as fn(u64) -> _), ("read", unknown)] {
        let shuffled = range(11).shuffle(4, 1, Reshuffle::EachEpoch);
        let more = range(5).map(|number| number + 100);
        let streams = [
            range(7),
            shuffled.clone(),
            shuffled.clone().repeat(3),
            range(3).repeat_endlessly().take(10),
            shuffled.clone().skip(2).take(5),
            shuffled.clone().shard(3, 2),
            shuffled.clone().filter(|number| number % 3 != 1),
            more.clone().concatenate(shuffled.clone()),
            shuffled
                .clone()
                .interleave(3, 2, move |number| more.clone().take(number % 5)),
            shuffled.clone().prefetch(2),
            shuffled.clone().cache(),
            range(0).repeat(4),
        ];
        for (index, stream) in streams.iter().enumerate() {
            goes_on(&format!("{name} {index}"), stream);
        }
        goes_on(name, &shuffled.clone().batch(4, Keep));
        goes_on(name, &shuffled.clone().batch(4, Drop).enumerate());
        goes_on(name, &shuffled.clone().zip(range(8)));
    }
    let text = serde_json::to_string(&Position {
        epoch: 2,
        element: 5,
    })
    .unwrap();
    assert_eq!(text, r#"{"epoch":2,"element":5}"#);
}

#[test]
fn a_stream_goes_on_with_another_number_of_ranks() {
    let stream = range(40)
        .shuffle(16, 3, Reshuffle::EachEpoch)
        .filter(|number| number % 5 != 0);
    /// The next `count` elements as `world` ranks read them, each its own.
    fn share(stream: &Dataset<u64>, world: u64, count: usize) -> Vec<u64> {
        let mut ranks: Vec<_> = (0..world)
            .map(|rank| stream.clone().shard(world, rank).iter(2))
            .collect();
        let next = |turn: usize| ranks[turn % world as usize].next().unwrap().unwrap();
        (0..count).map(next).collect()
    }
    let whole = all(&stream, 2);
    let begun = share(&stream, 4, 13);
    let gone_on = share(&stream.skip(13), 3, whole.len() - 13);
    assert_eq!([begun, gone_on].concat(), whole);
}

#[test]
fn what_is_cached_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("elements.jsonl");
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let stream = unknown(10)
        .shuffle(10, 5, Reshuffle::EachEpoch)
        .map(move |number| {
            count.fetch_add(1, Ordering::Relaxed);
            number as f32 / 3.0
        });
    let taken = || made.swap(0, Ordering::Relaxed);
    for cached in [stream.clone().cache(), stream.clone().cache_file(&file)] {
        // A pass that is given up keeps nothing.
        assert_eq!(cached.iter(4).take(3).count(), 3);
        assert_eq!(taken(), 3);
        // Epoch 0 is what is kept, whichever comes first.
        let first = all(&cached, 4);
        assert_eq!((first.len(), taken()), (10, 10));
        assert_eq!(
            (all(&cached, 0), all(&cached, 9)),
            (first.clone(), first.clone())
        );
        assert_eq!(taken(), 0);
        assert_eq!(all(&stream, 0), first);
        assert_eq!(taken(), 10);
        // What is shuffled does not depend on whether it is there yet.
        let late = cached.shuffle(4, 1, Reshuffle::EachEpoch);
        let early = stream.clone().cache().shuffle(4, 1, Reshuffle::EachEpoch);
        assert_eq!(all(&late, 1), all(&early, 1));
        taken();
    }
    let names = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["elements.jsonl"]);

    let broken = range(3).try_map(|number| match number {
        1 => Err(DataError::Element {
            problem: "no such element".to_owned(),
        }),
        number => Ok(number),
    });
    let other = folder.path().join("broken.jsonl");
    for cached in [
        broken.clone().cache(),
        broken.clone().cache_file(&other),
        broken,
    ] {
        let shown = cached
            .iter(0)
            .map(|element| element.map_err(|error| error.to_string()));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [Ok(0), Err("no such element".to_owned()), Ok(2)]
        );
    }
    assert!(!other.exists());

    fs::write(&file, "0.5\nx\n").unwrap();
    let error = all_errors(&stream.cache_file(&file));
    let expected = format!(
        "{}:2: no element of this stream (expected value at line 1 column 1); remove the \
                            file to make it again",
        file.display()
    );
    assert_eq!(error, [expected]);
}

fn all_errors<T>(dataset: &Dataset<T>) -> Vec<String> {
    let error = |element: Result<T, DataError>| Some(element.err()?.to_string());
    dataset.iter(0).filter_map(error).collect()
}

#[test]
#[should_panic(expected = "element 3 is bad")]
fn a_panic_on_the_thread_ahead_is_not_the_end_of_the_stream() {
    let stream = range(9).map(|number| match number {
        3 => panic!("element 3 is bad"),
        number => number,
    });
    all(&stream.prefetch(2), 0);
}

#[test]
fn files_are_streams_of_lines_and_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.txt"), "one\r\ntwo\n\nfour").unwrap();
    fs::write(
        path("b.txt"),
        [b"five\n".as_slice(), &[0xff, b'\n'], b"seven\n"].concat(),
    )
    .unwrap();
    let lines = Dataset::lines(&[path("*.txt")]).unwrap();
    let error = format!(
        "{}:2: not UTF-8; write the file as UTF-8",
        path("b.txt").display()
    );
    assert_eq!(all_errors(&lines), [error]);
    let whole: Vec<_> = lines.iter(0).filter_map(Result::ok).collect();
    assert_eq!(whole, ["one", "two", "", "four", "five", "seven"]);
    assert!(Dataset::lines(&[path("*.csv")]).is_err());
    assert_eq!(
        all_errors(&Dataset::lines(&[path("c.txt")]).unwrap()).len(),
        1
    );

    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/train.csv");
    let first = Dataset::lines(&[golden]).unwrap().iter(0).next();
    assert!(first.unwrap().unwrap().contains("digit"));
}

#[test]
fn an_error_stays_where_it_is_and_moves_nothing() {
    let bad = |number: u64| match number {
        5 => Err(DataError::Element {
            problem: "five".to_owned(),
        }),
        number => Ok(number),
    };
    let batches = range(14).try_map(bad).batch(4, Remainder::Drop);
    let shown = |element: u64| -> Vec<Result<Vec<u64>, String>> {
        let rest = batches.resume(Position { epoch: 0, element });
        rest.map(|batch| batch.map_err(|error| error.to_string()))
            .collect()
    };
    let whole = shown(0);
    assert_eq!((whole.len(), &whole[2]), (3, &Ok(vec![8, 9, 10, 11])));
    assert!(whole[1].is_err());
    assert_eq!((&shown(1)[..], &shown(2)[..]), (&whole[1..], &whole[2..]));
}

#[test]
fn what_has_nothing_for_once_is_repeated_and_what_never_ends_says_so() {
    let rarely = range(9)
        .shuffle(9, 3, Reshuffle::EachEpoch)
        .take(1)
        .filter(|number| number % 3 == 0);
    let passes: Vec<_> = (0..10).flat_map(|epoch| all(&rarely, epoch)).collect();
    assert!((1..10).contains(&passes.len()), "some passes have nothing");
    assert_eq!(all(&rarely.repeat(10), 0), passes);
    let endless = range(3).repeat_endlessly().flat_map(range);
    assert_eq!(endless.size(), Size::Endless);
}

#[test]
fn a_table_goes_through_a_stream_and_comes_back() {
    let table = Arc::new(Table {
        encoding: Some(Default::default()),
        features: (0..12).map(|number| number as f32).collect(),
        targets: vec![0.0, 1.0, 1.0, 0.0],
        weights: Some(vec![1.0, 0.5, 2.0, 1.0]),
        names: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
        ..Table::empty(
            [3].into(),
            Targets::Classes(vec!["no".to_owned(), "yes".to_owned()]),
            4,
        )
    });
    let description = table.description();
    let rows = Dataset::rows(Arc::clone(&table));
    assert_eq!(rows.clone().into_table(&description).unwrap(), *table);
    let yes = rows
        .clone()
        .filter(|row: &Row| row.targets == [1.0])
        .repeat(2);
    let yes = yes.into_table(&description).unwrap();
    assert_eq!((yes.rows, yes.targets), (4, vec![1.0; 4]));
    assert_eq!(yes.features[..6], table.features[3..9]);
    assert_eq!(yes.weights.unwrap(), [0.5, 2.0, 0.5, 2.0]);

    let problem = |rows: Dataset<Row>| rows.into_table(&description).unwrap_err().to_string();
    assert_eq!(
        problem(rows.clone().repeat_endlessly()),
        "an endless stream is no table; take some of it"
    );
    assert_eq!(
        problem(rows.clone().take(0)),
        "a stream of no rows is no table"
    );
    let weighed_at_first = rows.clone().enumerate().map(|(place, mut row)| {
        row.weight = row.weight.filter(|_| place < 2);
        row
    });
    assert_eq!(
        problem(weighed_at_first),
        "row 3 has 3 features, 1 targets and no weight; all rows have 3, 1 and, where one has it, a weight"
    );
    let cut = rows.enumerate().map(|(place, mut row)| {
        row.features.truncate(3 - place as usize);
        row
    });
    assert_eq!(
        problem(cut),
        "row 2 has 2 features, 1 targets and a weight; all rows have 3, 1 and, where one has it, a weight"
    );
}
