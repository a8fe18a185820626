//! One run: everything there is, and the loop that lets it happen.
//!
//! Every part is a value of its own and knows nothing of the others; what passes between them is
//! here and in the files below, one for each place where something happens. Nothing here sleeps,
//! reads a clock or starts a thread.

mod agent;
mod applications;
mod cutting;
mod link;
mod peers;
mod shipping;
mod target;
mod trouble;
mod writers;

use blocks::{DiskId, Epoch};
use wire::message::{HashRequest, OpenDisk};

use crate::{
    agent::Agent,
    checks::Checks,
    clock::{Clock, MS, S, Step},
    conflicts::Half,
    history::WriteId,
    machine::Machine,
    network::{Arrival, ConnectionId, Lane, Network},
    rng::Rng,
    scenario::Scenario,
    target::{Target, WriterId},
    trace::Trace,
};

pub(crate) use cutting::{Cutting, ReadPart};

/// How long everything may take to be equal once nothing goes wrong any more.
const SETTLING_MAX: u64 = 300 * S;

/// Something that happens. What carries a life or a boot is of that one, and is nothing after it.
pub(crate) enum Event {
    /// A stream issues its next write.
    Issue { boot: usize, stream: usize },
    /// A write that the issue program has seen goes to the disk.
    Submit { boot: usize, disk: usize, write: WriteId, stream: usize, half: Half },
    /// The medium takes part of a write.
    Medium { boot: usize, disk: usize, write: WriteId },
    /// The disk says that a write is done.
    Finish { boot: usize, disk: usize, write: WriteId, stream: usize },
    /// The application is told.
    Told { boot: usize, disk: usize, write: WriteId, stream: usize },
    /// The agent looks around.
    Tick { life: u64 },
    /// The agent connects.
    Dial { life: u64 },
    /// The next step of an epoch's way from the disk to frames.
    Ship { life: u64, disk: usize, epoch: Epoch },
    /// The next step of a cut.
    Cut { life: u64 },
    /// A part of a read for a cut.
    CutRead { life: u64, id: u64, part: ReadPart },
    /// The target does not want a data stream any more.
    Stopped { life: u64, connection: ConnectionId, stream: u64 },
    /// The agent hears that its connection is gone.
    AgentHears { life: u64, connection: ConnectionId },
    /// Bytes arrive.
    Arrive { connection: ConnectionId, lane: Lane },
    /// The target hears that a connection is gone.
    TargetHears { connection: ConnectionId },
    /// A thread of the target opens a replica.
    Open { life: u64, connection: ConnectionId, open: Box<OpenDisk>, until: u64 },
    /// A thread of the target hashes blocks.
    Hash { life: u64, connection: ConnectionId, request: HashRequest },
    /// A thread of the target goes on with an epoch.
    Write { life: u64, writer: WriterId },
    /// What became of an epoch reaches the session.
    Written { life: u64, connection: ConnectionId, disk: DiskId, epoch: Epoch, result: Written },
    /// A fault of the scenario.
    Fault(usize),
    /// The agent starts.
    StartAgent,
    /// The source machine starts.
    StartMachine,
    /// The target starts.
    StartTarget { life: u64 },
    /// Nothing goes wrong any more, and nobody writes.
    Heal,
    /// Is everything equal by now?
    Look,
}

/// What became of an epoch at the target.
pub(crate) type Written = Result<(), (wire::CloseCode, String)>;

/// Everything there is.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) clock: Clock<Event>,
    pub(crate) trace: Trace,
    pub(crate) rng: Rng,
    pub(crate) machine: Machine,
    pub(crate) agent: Option<Agent>,
    pub(crate) agent_life: u64,
    pub(crate) agent_still_until: u64,
    pub(crate) network: Network,
    pub(crate) target: Target,
    pub(crate) target_still_until: u64,
    pub(crate) checks: Checks,
    /// How many points were made.
    pub(crate) points: u64,
    /// When the run began, on its clock.
    pub(crate) began: u64,
    pub(crate) healed_at: Option<u64>,
    pub(crate) finished: bool,
}

/// Notes what happens, in the words of the trace.
macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        $world.trace.note($world.clock.now(), format_args!($($words)*))
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario, keeps_lines: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut clock = Clock::new();
        let began = clock.step();
        let machine = Machine::new(&scenario, began);
        let checks = Checks::new(&scenario);
        let network = Network::new(scenario.network, rng.fork());
        let mut world = Self {
            scenario,
            clock,
            trace: Trace::new(keeps_lines),
            rng,
            machine,
            agent: None,
            agent_life: 0,
            agent_still_until: 0,
            network,
            target: Target::new(),
            target_still_until: 0,
            checks,
            points: 0,
            began: 0,
            healed_at: None,
            finished: false,
        };
        world.began = world.clock.now();
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.protect();
        self.clock.after(0, Event::StartTarget { life: 0 });
        self.clock.after(self.scenario.interval / 8, Event::StartAgent);
        self.start_streams();
        for (index, (at, _)) in self.scenario.faults.clone().into_iter().enumerate() {
            self.clock.after(at, Event::Fault(index));
        }
        self.clock.after(self.scenario.active, Event::Heal);
    }

    /// Lets the next thing happen. Says no when the run is over.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(event) = self.clock.next() else { return false };
        let now = self.clock.now();
        if event.concerns_target() && now < self.target_still_until {
            self.clock.at(self.target_still_until, event);
            return true;
        }
        if event.concerns_agent() && now < self.agent_still_until {
            self.clock.at(self.agent_still_until, event);
            return true;
        }
        self.happen(event);
        self.lose_power_if_due();
        !self.finished && self.checks.failure.is_none()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Issue { boot, stream } if boot == self.machine.boot => self.issue(stream),
            Event::Medium { boot, disk, write } if boot == self.machine.boot => {
                self.medium(disk, write);
            }
            Event::Finish { boot, disk, write, stream } if boot == self.machine.boot => {
                self.finish(disk, write, stream);
            }
            Event::Told { boot, disk, write, stream } if boot == self.machine.boot => {
                self.tell(disk, write, stream);
            }
            Event::Submit { boot, disk, write, stream, half } if boot == self.machine.boot => {
                self.submit(disk, write, stream, half);
            }
            Event::Submit { .. }
            | Event::Issue { .. }
            | Event::Medium { .. }
            | Event::Finish { .. }
            | Event::Told { .. } => {}
            Event::Fault(index) => self.go_wrong(index),
            Event::StartAgent => self.start_agent(),
            Event::StartMachine => self.start_machine(),
            Event::Heal => self.heal(),
            Event::Look => self.look_at_the_end(),
            Event::Arrive { connection, lane } => self.arrive(connection, lane),
            event if event.concerns_target() => self.happen_at_target(event),
            event => self.happen_at_agent(&event),
        }
    }

    fn arrive(&mut self, connection: ConnectionId, lane: Lane) {
        let Some(arrival) = self.network.arrive(connection, lane) else { return };
        match lane {
            Lane::ToAgent => self.agent_receives(connection, arrival),
            Lane::ToTarget | Lane::Data(_) => self.target_receives(connection, lane, arrival),
        }
    }

    /// Sends bytes, and plans their arrival.
    pub(crate) fn send(
        &mut self,
        connection: ConnectionId,
        lane: Lane,
        arrivals: impl IntoIterator<Item = Arrival>,
    ) {
        let now = self.clock.now();
        for at in self.network.send(connection, lane, now, arrivals) {
            self.clock.at(at, Event::Arrive { connection, lane });
        }
    }

    /// A step of its own for what happens now.
    pub(crate) fn step(&mut self) -> Step {
        self.clock.step()
    }

    /// Something is not as it must be.
    pub(crate) fn fail(&mut self, what: String) {
        note!(self, "FAILED: {what}");
        self.checks.failure.get_or_insert(what);
    }

    fn heal(&mut self) {
        note!(self, "nothing goes wrong any more, nobody writes");
        self.healed_at = Some(self.clock.now());
        // An end that waits for operations of an idle store comes now.
        self.target.end_now();
        self.clock.after(50 * MS, Event::Look);
    }

    /// At the end everything is equal, and nobody has forgotten anything on the way there.
    fn look_at_the_end(&mut self) {
        let Some(healed_at) = self.healed_at else { return };
        match self.unsettled() {
            None => {
                note!(self, "everything is equal");
                self.finished = true;
            }
            Some(why) if self.clock.now() > healed_at + SETTLING_MAX => {
                self.fail(format!("does not settle: {why}"));
            }
            Some(_) => self.clock.after(100 * MS, Event::Look),
        }
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.healed_at.is_some()
    }
}

impl Event {
    fn concerns_target(&self) -> bool {
        match self {
            Self::Arrive { lane, .. } => *lane != Lane::ToAgent,
            Self::TargetHears { .. }
            | Self::Open { .. }
            | Self::Hash { .. }
            | Self::Write { .. }
            | Self::Written { .. }
            | Self::StartTarget { .. } => true,
            _ => false,
        }
    }

    fn concerns_agent(&self) -> bool {
        match self {
            Self::Arrive { lane, .. } => *lane == Lane::ToAgent,
            Self::Tick { .. }
            | Self::Dial { .. }
            | Self::Ship { .. }
            | Self::Cut { .. }
            | Self::CutRead { .. }
            | Self::Stopped { .. }
            | Self::AgentHears { .. } => true,
            _ => false,
        }
    }
}
