use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const PART: u64 = 8 * MIB;

fn moved(plan: &Plan, shape: Shape<'_>) -> u64 {
    let fetched = |range: &Range<u64>| {
        shape.local.missing(range.start..range.end.min(shape.base_limit).max(range.start))
    };
    match plan {
        Plan::Copy => 0,
        Plan::Put => shape.size + fetched(&(0..shape.size)),
        Plan::Parts(parts) => parts
            .iter()
            .map(|part| match part {
                PartSource::Here(range) => range.end - range.start + fetched(range),
                PartSource::Base(_) | PartSource::Zeros { .. } => 0,
            })
            .sum(),
    }
}

#[test]
fn appending_to_a_large_object_moves_the_appended_bytes() {
    let size = 1024 * MIB + 1024;
    let local = std::iter::once(1024 * MIB..size).collect::<Ranges>();
    let shape = Shape {
        size,
        local: &local,
        dirty: &Ranges::new(),
        holes: &Ranges::new(),
        base_limit: 1024 * MIB,
        base_size: 1024 * MIB,
    };
    let plan = plan(shape, PART);
    assert_eq!(moved(&plan, shape), 1024);
    let Plan::Parts(parts) = plan else { panic!("{plan:?}") };
    assert_eq!(parts, [PartSource::Base(0..1024 * MIB), PartSource::Here(1024 * MIB..size)]);
}

#[test]
fn overwriting_a_few_bytes_in_the_middle_moves_at_most_10_mib() {
    let local = std::iter::once(30 * MIB..30 * MIB + 4096).collect::<Ranges>();
    let shape = Shape {
        size: 64 * MIB,
        local: &local,
        dirty: &local,
        holes: &Ranges::new(),
        base_limit: 64 * MIB,
        base_size: 64 * MIB,
    };
    assert!(moved(&plan(shape, PART), shape) <= 10 * MIB);
}

#[test]
fn small_files_are_put_and_large_new_ones_go_in_parts() {
    let none = Ranges::new();
    for (size, expected) in [(0, 1), (1, 1), (16 * MIB, 1), (16 * MIB + 1, 2), (100 * MIB, 12)] {
        let local = std::iter::once(0..size).collect::<Ranges>();
        let shape = Shape { size, local: &local, dirty: &none, holes: &none, base_limit: 0, base_size: 0 };
        let requests = match plan(shape, PART) {
            Plan::Put => 1,
            Plan::Parts(parts) => parts.len(),
            Plan::Copy => panic!("there is nothing to copy"),
        };
        assert_eq!(requests, expected, "{size}");
    }
}

#[test]
fn an_unchanged_base_is_copied() {
    let none = Ranges::new();
    let shape =
        Shape { size: MIB, local: &none, dirty: &none, holes: &none, base_limit: MIB, base_size: MIB };
    assert_eq!(plan(shape, PART), Plan::Copy);
    let size = 12 << 30;
    let shape = Shape { size, local: &none, dirty: &none, holes: &none, base_limit: size, base_size: size };
    let Plan::Parts(parts) = plan(shape, PART) else { panic!("more than one copy may move") };
    assert!(parts.iter().all(|part| matches!(part, PartSource::Base(_))));
}

#[test]
fn a_hole_behind_a_large_object_is_copied_from_a_hole_of_the_object() {
    // Data, a hole that was uploaded, data; and a hole that is new.
    let holes = std::iter::once(10 * MIB..90 * MIB).collect::<Ranges>();
    let local = std::iter::once(0..100 * MIB).collect::<Ranges>();
    let none = Ranges::new();
    let (base, size) = (100 * MIB, 200 * MIB);
    let shape = Shape { size, local: &local, holes: &holes, dirty: &none, base_limit: base, base_size: base };
    let grown = plan(shape, PART);
    assert_eq!(moved(&grown, shape), 0, "{grown:?}");
    let Plan::Parts(parts) = grown else { panic!("{grown:?}") };
    let mut at = 0;
    for part in &parts {
        assert_eq!(part.range().start, at);
        at = part.range().end;
        if let PartSource::Zeros { range, .. } = part {
            let copied = part.copied().expect("a copy");
            assert_eq!(copied.end - copied.start, range.end - range.start);
            assert!(holes.contains(copied));
        }
    }
    assert_eq!(at, size);
    // What was written into that hole is no zeros any more.
    let dirty = std::iter::once(50 * MIB..51 * MIB).collect::<Ranges>();
    let shape = Shape { dirty: &dirty, ..shape };
    assert!(moved(&plan(shape, PART), shape) >= 100 * MIB);
}

#[test]
fn parts_of_a_stream_follow_each_other() {
    let mut at = 0;
    for number in 1..=7000 {
        let part = stream_part(number, PART);
        assert_eq!(part.start, at);
        at = part.end;
    }
    assert!(at > 900 << 30);
}

proptest! {
    #[test]
    fn every_plan_covers_the_file_once_in_parts_that_the_server_takes(
        size in 0u64..200,
        base in 0u64..200,
        changes in prop::collection::vec((0u64..200 * MIB, 0u64..6 * MIB), 0..6),
    ) {
        let (size, base_size) = (size * MIB + 17, base * MIB);
        let base_limit = base_size.min(size);
        let dirty: Ranges = changes
            .into_iter()
            .map(|(at, len)| at.min(size)..(at + len).min(size))
            .collect();
        let mut local = dirty.clone();
        local.insert(base_limit..size);
        let holes = Ranges::new();
        let shape = Shape { size, local: &local, holes: &holes, dirty: &dirty, base_limit, base_size };
        let plan = plan(shape, PART);
        prop_assert!(moved(&plan, shape) <= size + shape.local.missing(0..base_limit));
        if let Plan::Parts(parts) = plan {
            let mut at = 0;
            for (index, part) in parts.iter().enumerate() {
                let range = part.range();
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end - range.start >= MIN_PART || index + 1 == parts.len());
                if let PartSource::Base(range) = part {
                    prop_assert!(range.end <= base_limit && range.end - range.start <= MAX_COPY);
                    prop_assert!(dirty.overlapping(range.clone()).is_empty());
                }
                at = range.end;
            }
            prop_assert_eq!(at, size);
            prop_assert!(parts.len() <= 7000);
        }
    }
}
