//! What goes wrong, how often, and in which order.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{AssertSqlSafe, Connection, Executor};
use test_kit::Network;

use crate::{
    lasts, long,
    world::{World, replicas},
};

/// Longer than the lease of a run and of the relay.
const BEYOND_LEASES: Duration = Duration::from_secs(33);

/// Replicas that go on while the others stand still.
fn awake() -> usize {
    replicas() / 3
}

/// A fault, with what chance chose for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    KillReplica(usize, u64),
    KillConsumer(u64),
    KillPostgres,
    KillKafka,
    Terminate(usize, u64),
    TerminateTwice(usize),
    TerminateBeforeReady(usize),
    /// All replicas from this one on but a few stand still beyond their leases, while the others go on and are killed so often.
    Freeze(usize, usize),
    /// All stand still, as when the machine sleeps.
    Sleep,
    Postgres(Network, u64),
    Kafka(Network, u64),
    ReadOnly,
    NoConnections,
    LockHeld,
}

impl Fault {
    fn kind(&self) -> String {
        match self {
            Self::KillReplica(..) => "SIGKILL of a replica".to_owned(),
            Self::KillConsumer(_) => "SIGKILL of the consumer".to_owned(),
            Self::KillPostgres => "PostgreSQL stopped immediately".to_owned(),
            Self::KillKafka => "SIGKILL of Kafka".to_owned(),
            Self::Terminate(..) => "SIGTERM".to_owned(),
            Self::TerminateTwice(_) => "SIGTERM twice in a row".to_owned(),
            Self::TerminateBeforeReady(_) => "SIGTERM before ready".to_owned(),
            Self::Freeze(..) => "SIGSTOP beyond the lease".to_owned(),
            Self::Sleep => "all replicas asleep".to_owned(),
            Self::Postgres(network, _) => format!("PostgreSQL: {}", words(*network)),
            Self::Kafka(network, _) => format!("Kafka: {}", words(*network)),
            Self::ReadOnly => "PostgreSQL read-only".to_owned(),
            Self::NoConnections => "max_connections reached".to_owned(),
            Self::LockHeld => "a lock held".to_owned(),
        }
    }

    /// How often each kind strikes; a freeze strikes several.
    pub(crate) fn counts(faults: &[Self]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for fault in faults {
            let times = if let Self::Freeze(_, kills) = fault {
                *counts.entry(Self::KillReplica(0, 0).kind()).or_default() += kills;
                replicas() - awake()
            } else {
                1
            };
            *counts.entry(fault.kind()).or_default() += times;
        }
        counts
    }

    pub(crate) async fn strike(&self, world: &mut World) {
        match *self {
            Self::KillReplica(at, after) => {
                lasts(Duration::from_millis(after)).await;
                world.kill(at);
            }
            Self::KillConsumer(after) => {
                lasts(Duration::from_millis(after)).await;
                world.kill_consumer();
            }
            Self::KillPostgres => {
                world.postgres.kill();
                lasts(Duration::from_millis(200)).await;
                world.postgres.start().await;
            }
            Self::KillKafka => {
                world.kafka.kill();
                world.kafka.start().await;
            }
            Self::Terminate(at, after) => {
                lasts(Duration::from_millis(after)).await;
                world.terminate(at, 1);
            }
            Self::TerminateTwice(at) => world.terminate(at, 2),
            Self::TerminateBeforeReady(at) => {
                world.kill(at);
                world.terminate(at, 1);
            }
            Self::Freeze(at, kills) => {
                let place = |number: usize| (at + number) % replicas();
                (awake()..replicas()).for_each(|number| world.freeze(place(number)));
                for kill in 0..kills {
                    lasts(BEYOND_LEASES / u32::try_from(kills).expect("it is small")).await;
                    world.kill(place(kill % awake()));
                }
                (awake()..replicas()).for_each(|number| world.thaw(place(number)));
            }
            Self::Sleep => {
                (0..replicas()).for_each(|at| world.freeze(at));
                lasts(Duration::from_secs(if long() { 180 } else { 20 })).await;
                (0..replicas()).for_each(|at| world.thaw(at));
            }
            Self::Postgres(network, millis) => {
                world.to_postgres.set(network);
                lasts(Duration::from_millis(millis)).await;
                world.to_postgres.set(Network::Open);
            }
            Self::Kafka(network, millis) => {
                world.to_kafka.set(network);
                lasts(Duration::from_millis(millis)).await;
                world.to_kafka.set(Network::Open);
            }
            Self::ReadOnly => read_only(world).await,
            Self::NoConnections => no_connections(world).await,
            Self::LockHeld => lock_held(world).await,
        }
    }
}

fn words(network: Network) -> &'static str {
    match network {
        Network::Open => "open",
        Network::Cut => "cut and refused",
        Network::Silent => "silent (half-open)",
        Network::Deaf => "one way",
        Network::Slow(_) => "slow",
        Network::CommitUnanswered => "answer to COMMIT dropped",
    }
}

/// Every new transaction is read-only for a while, and those that go on are ended.
async fn read_only(world: &World) {
    let mut rows = world.rows().await;
    rows.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.expect("it can be set");
    rows.execute("SELECT pg_reload_conf()").await.expect("it is read");
    lasts(Duration::from_secs(4)).await;
    rows.execute("ALTER SYSTEM RESET default_transaction_read_only").await.expect("it can be reset");
    rows.execute("SELECT pg_reload_conf()").await.expect("it is read");
}

/// Others take every connection, and everybody must connect anew.
async fn no_connections(world: &World) {
    let mut hoard = Vec::new();
    let mut first = world.rows().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'belfry/%'";
    first.execute(end).await.expect("connections can be ended");
    let url = format!("postgres://postgres@{}/postgres", world.postgres.address());
    while let Ok(connection) = sqlx::PgConnection::connect(&url).await {
        hoard.push(connection);
        assert!(hoard.len() < 1_000, "there is an end to connections");
    }
    lasts(Duration::from_secs(4)).await;
    for connection in hoard {
        drop(connection.close().await);
    }
}

/// Somebody holds the lock that every write of the scheduler and of blog needs.
async fn lock_held(world: &World) {
    let mut rows = world.rows().await;
    for statement in ["BEGIN", "LOCK TABLE blog.job_schedules, blog.posts IN ACCESS EXCLUSIVE MODE"] {
        rows.execute(AssertSqlSafe(statement)).await.expect("the lock is ours");
    }
    lasts(Duration::from_secs(if long() { 60 } else { 8 })).await;
    rows.execute("ROLLBACK").await.expect("it ends");
}

/// The faults of a storm, in an order that the seed chooses.
pub(crate) fn faults(seed: u64, long: bool) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let times = |short: usize, of_long: usize| if long { of_long } else { short };
    let mut all = Vec::new();
    let mut add = |count: usize, make: &mut dyn FnMut() -> Fault| all.extend((0..count).map(|_| make()));
    add(times(24, 200), &mut || Fault::KillReplica(rng.usize(..replicas()), rng.u64(20..900)));
    add(times(4, 150), &mut || Fault::KillConsumer(rng.u64(20..900)));
    add(times(3, 100), &mut || Fault::KillPostgres);
    add(times(1, 50), &mut || Fault::KillKafka);
    add(times(5, 140), &mut || Fault::Terminate(rng.usize(..replicas()), rng.u64(20..900)));
    add(times(2, 30), &mut || Fault::TerminateTwice(rng.usize(..replicas())));
    add(times(2, 30), &mut || Fault::TerminateBeforeReady(rng.usize(..replicas())));
    add(times(1, 50), &mut || Fault::Freeze(rng.usize(..replicas()), times(2, 12)));
    add(times(1, 2), &mut || Fault::Sleep);
    for network in [Network::Cut, Network::Deaf, Network::Slow(Duration::from_millis(120)), Network::CommitUnanswered] {
        add(times(1, 20), &mut || Fault::Postgres(network, rng.u64(1_000..4_000)));
        if network != Network::CommitUnanswered {
            add(times(1, 10), &mut || Fault::Kafka(network, rng.u64(1_000..4_000)));
        }
    }
    add(times(1, 10), &mut || Fault::Postgres(Network::Silent, 12_000));
    add(times(1, 5), &mut || Fault::Kafka(Network::Silent, 12_000));
    add(times(1, 5), &mut || Fault::ReadOnly);
    add(times(1, 5), &mut || Fault::NoConnections);
    add(times(1, 3), &mut || Fault::LockHeld);
    rng.shuffle(&mut all);
    all
}
