use super::*;
use proptest::prelude::*;

const PROCESSOR: Load = Load { backlog: 1.0, outbox: 0.0, idle: Some(0.5) };
const LINK: Load = Load { backlog: 0.0, outbox: 0.9, idle: Some(0.5) };
const DISK: Load = Load { backlog: 0.0, outbox: 0.1, idle: Some(0.9) };

fn after(controller: &mut LevelController, load: Load, times: usize) -> i32 {
    (0..times).for_each(|_| controller.handle_load(load));
    controller.level()
}

#[test]
fn the_level_follows_the_bottleneck() {
    let mut controller = LevelController::new(LevelRange::default());
    assert_eq!(after(&mut controller, LINK, 30), 9);
    assert_eq!(after(&mut controller, DISK, 30), LevelRange::RESTING);
    assert_eq!(after(&mut controller, PROCESSOR, 30), -7);
    assert_eq!(controller.bottleneck(), Bottleneck::Processor);
}

#[test]
fn a_full_outbox_on_a_busy_machine_is_no_slow_link() {
    let load = Load { idle: Some(0.02), ..LINK };
    assert_eq!(load.bottleneck(), Bottleneck::Processor);
    assert_eq!(Load { idle: None, ..LINK }.bottleneck(), Bottleneck::Link);
}

#[test]
fn one_odd_observation_moves_nothing() {
    let mut controller = LevelController::new(LevelRange::default());
    let level = after(&mut controller, DISK, 20);
    for _ in 0..10 {
        assert_eq!(after(&mut controller, LINK, 1), level);
        assert_eq!(after(&mut controller, DISK, 1), level);
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    assert!(LevelRange::new(-8, 3).is_err());
    assert!(LevelRange::new(3, 10).is_err());
    assert!(LevelRange::new(3, 2).is_err());
    assert!(LevelRange::new(0, 3).is_err());
    assert!(LevelRange::new(3, 3).is_ok());
}

proptest! {
    #[test]
    fn the_level_stays_in_range_and_is_never_zero(
        floor in -7i32..=9,
        span in 0i32..=16,
        loads in prop::collection::vec((0f32..1.0, 0f32..1.0, prop::option::of(0f32..1.0)), 0..80),
    ) {
        let ceiling = (floor + span).min(9);
        prop_assume!(floor != 0 && ceiling != 0);
        let mut controller = LevelController::new(LevelRange::new(floor, ceiling).unwrap());
        for (backlog, outbox, idle) in loads {
            controller.handle_load(Load { backlog, outbox, idle });
            prop_assert!((floor..=ceiling).contains(&controller.level()));
            prop_assert_ne!(controller.level(), 0);
        }
    }
}
