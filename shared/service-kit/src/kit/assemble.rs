//! From the wiring of services to a process: pools on the runtimes that use them, broker, doors, listeners.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use broker::{Broker, EmbeddedBroker, KafkaBroker};
use inbox::{Listener, ListenerConfig};
use outbox::{Relay, RelayConfig, RelayHandle};
use scheduler::{
    Running, Scheduler,
    clock::{Clock, DatabaseClock},
    store::sql::{SqlStore, Time, notify::Notifications},
};
use sea_orm::DatabaseConnection;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use super::{
    Options, bells,
    ready::{self, Gate},
    runtimes::{Runtimes, WORK_THREADS},
    upgrade::Upgrade,
};
use crate::{
    admin::{self, Admin, Operated},
    config::{Config, DatabaseUrl},
    database::{Db, Place, Pool},
    health::Health,
    http::{auth, layers, openapi, server},
    lifecycle::Supervisor,
    metrics,
    service::{Service, Setup},
};

/// How often old events of the embedded log are looked for.
const PRUNE_LOG: Duration = Duration::from_secs(3600);

/// A process that is ready to serve.
pub(super) struct Assembled {
    pub(super) public: Router,
    pub(super) admin: Router,
    pub(super) listener: TcpListener,
    pub(super) admin_listener: TcpListener,
    pub(super) schedulers: Vec<Running<SqlStore>>,
    pub(super) supervisor: Supervisor,
    pub(super) health: Health,
    /// Ends the relays, after everything that records has ended.
    pub(super) relay_stop: CancellationToken,
}

/// What all services of a process share.
struct Shared<'a> {
    config: &'a Config,
    options: &'a Options,
    runtimes: &'a Runtimes,
    clock: Arc<dyn Clock>,
    broker: Arc<dyn Broker>,
    notifications: Option<Arc<Notifications>>,
    health: Health,
    stop: CancellationToken,
    relay_stop: CancellationToken,
    supervisor: Supervisor,
}

/// One service that runs.
struct Part {
    routes: OpenApiRouter,
    running: Running<SqlStore>,
    operated: Operated,
}

pub(super) async fn assemble(
    services: Vec<Service>,
    config: &Config,
    options: &Options,
    runtimes: &Runtimes,
    stop: &CancellationToken,
) -> anyhow::Result<Assembled> {
    let process = &config.process;
    let listener = server::bind(process.http_addr, "HTTP_ADDR").await?;
    let admin_listener = server::bind(process.admin_addr, "ADMIN_ADDR").await?;
    let recorder = metrics::recorder()?;
    let supervisor = Supervisor::new(runtimes.front.handle().clone(), stop.clone());
    let clock: Arc<dyn Clock> = DatabaseClock::new();
    let (broker, embedded) = broker(config).await?;
    let notifications = notifications(config, runtimes, stop)?;
    let shared = Shared {
        config,
        options,
        runtimes,
        clock: Arc::clone(&clock),
        broker,
        notifications,
        health: Health::default(),
        stop: stop.clone(),
        relay_stop: CancellationToken::new(),
        supervisor,
    };
    shared.budget(services.len());
    let mut parts = Vec::new();
    for service in &services {
        let place = Place::of(&process.database, service.name);
        parts.push(shared.part(service).await.with_context(|| format!("service {}, {place}", service.name))?);
    }
    shared.upkeep(recorder.clone(), embedded);
    let oidc = process.auth.clone().map(|auth| auth::Oidc::new(auth, Arc::clone(&clock))).transpose()?.map(Arc::new);
    if process.open_to_all {
        tracing::warn!(address = %process.http_addr, "AUTH_ENABLED=false: whoever reaches this address may change everything");
    }
    let (mut router, mut schedulers, mut operated) =
        (OpenApiRouter::with_openapi(openapi::document("Belfry")), Vec::new(), Vec::new());
    for part in parts {
        router = router.merge(part.routes);
        schedulers.push(part.running);
        operated.push(part.operated);
    }
    let operated = Arc::new(operated);
    let changed = changed(&operated);
    let (routes, document) = router.split_for_parts();
    let public = layers::wrap(
        routes.merge(openapi::routes(document)),
        layers::Layers {
            service: shared.options.name,
            rate_limit_rps: process.rate_limit_rps,
            access: Arc::new(auth::Access { oidc: oidc.clone().filter(|_| process.auth_enabled) }),
            changed,
        },
    );
    let access = admin::Access { address: process.admin_addr, token: process.admin_token.clone(), oidc };
    let admin =
        Admin { services: operated, health: shared.health.clone(), metrics: recorder, access: Arc::new(access), clock };
    Ok(Assembled {
        public,
        admin: admin::layered(admin::routes(admin)),
        listener,
        admin_listener,
        schedulers,
        supervisor: shared.supervisor,
        health: shared.health,
        relay_stop: shared.relay_stop,
    })
}

/// After a change through the API of a service: its due rows and its events.
fn changed(operated: &Arc<Vec<Operated>>) -> Arc<dyn Fn(&str) + Send + Sync> {
    let operated = Arc::clone(operated);
    Arc::new(move |name| {
        if let Some(service) = operated.iter().find(|service| service.name == name) {
            service.jobs.changed();
            service.relay.wake();
        }
    })
}

/// Kafka where it is configured, else the log in this process's files.
async fn broker(config: &Config) -> anyhow::Result<(Arc<dyn Broker>, Option<Arc<EmbeddedBroker>>)> {
    if let Some(kafka) = &config.process.kafka {
        return Ok((Arc::new(KafkaBroker::new(kafka.clone())?), None));
    }
    tokio::fs::create_dir_all(&config.process.data_dir).await?;
    let file = config.process.log_file();
    let log = EmbeddedBroker::open(&file).await.with_context(|| format!("the log, file {}", file.display()))?;
    let log = Arc::new(log);
    Ok((Arc::clone(&log) as Arc<dyn Broker>, Some(log)))
}

/// One listening connection for all services.
fn notifications(
    config: &Config,
    runtimes: &Runtimes,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Arc<Notifications>>> {
    let DatabaseUrl::Postgres(url) = &config.process.database else { return Ok(None) };
    let options = crate::database::connect_options(url, "public", "belfry/listen")?;
    let _on_keep = runtimes.keep.enter();
    Ok(Some(Notifications::listen(options, stop.clone())))
}

impl Shared<'_> {
    /// Says how many connections this process may open.
    fn budget(&self, services: usize) {
        if self.notifications.is_some() {
            let each = Pool::Api.size() + Pool::Work.size() + Pool::Keep.size();
            let all = u32::try_from(services).unwrap_or(u32::MAX).saturating_mul(each) + 1;
            tracing::info!(
                connections_max = all,
                "database connections of this process; keep max_connections above the sum of all"
            );
        }
    }

    async fn part(&self, service: &Service) -> anyhow::Result<Part> {
        let place = Place::of(&self.config.process.database, service.name);
        let (api, work, keep) = self.pools(&place, service)?;
        let upgrade =
            if self.options.start.embedded { Upgrade::of(service, &place, api.clone()).begin().await? } else { None };
        let db = Db::new(api.clone(), place.reader(&api)?);
        let store = SqlStore::new(
            keep.clone(),
            work,
            service.name,
            Time::Database,
            Arc::clone(&self.clock),
            self.notifications.clone(),
        )
        .on_deadline(Arc::new(database::suspect));
        let gate = {
            let (clock, health, stop) = (Arc::clone(&self.clock), self.health.clone(), self.stop.clone());
            let (gate, looking) = ready::watch(service, upgrade, keep.clone(), clock, health, stop);
            self.runtimes.keep.spawn(looking);
            gate
        };
        let doors = (service.doors)(&self.setup(service, db));
        let relay = self.relay(service, &api, gate.clone());
        self.bells(service, &store, &relay);
        let running = self.scheduler(service, store, doors.jobs, relay.clone());
        let listeners = self.listeners(service, &api, &doors.listeners, &gate, &running, &relay);
        let operated = Operated {
            name: service.name,
            jobs: running.handle(),
            outbox: outbox::Store::new(keep.clone()),
            db: keep,
            listeners,
            relay,
        };
        Ok(Part { routes: doors.routes, running, operated })
    }

    /// The three pools of a service, each made on the runtime that uses it. On SQLite they are its one writer.
    fn pools(
        &self,
        place: &Place,
        service: &Service,
    ) -> anyhow::Result<(DatabaseConnection, DatabaseConnection, DatabaseConnection)> {
        let on = |handle: &tokio::runtime::Handle, pool| {
            let _guard = handle.enter();
            place.pool(service.name, pool)
        };
        let api = on(self.runtimes.front.handle(), Pool::Api)?;
        if matches!(place, Place::File(_)) {
            return Ok((api.clone(), api.clone(), api));
        }
        let work = on(self.runtimes.work.handle(), Pool::Work)?;
        let keep = on(&self.runtimes.keep, Pool::Keep)?;
        Ok((api, work, keep))
    }

    fn setup(&self, service: &Service, db: Db) -> Setup {
        let jobs: HashMap<_, _> = service
            .jobs
            .iter()
            .filter_map(|job| Some((job.name, self.config.jobs.get(&(service.name, job.name))?.clone())))
            .collect();
        let settings = self.config.settings.get(service.name).cloned().unwrap_or_else(|| Arc::new(()));
        Setup { db, clock: Arc::clone(&self.clock), settings, jobs }
    }

    fn now(&self) -> Arc<dyn Fn() -> chrono::DateTime<chrono::Utc> + Send + Sync> {
        let clock = Arc::clone(&self.clock);
        Arc::new(move || clock.now())
    }

    fn relay(&self, service: &Service, api: &DatabaseConnection, gate: Gate) -> RelayHandle {
        let store = outbox::Store::new(api.clone());
        let (broker, now, stop) = (Arc::clone(&self.broker), self.now(), self.relay_stop.clone());
        let wake = RelayHandle::default();
        let (handle, name) = (wake.clone(), service.name);
        self.supervisor.run(&format!("{name} relay"), move || {
            let relay = Relay::new(
                name,
                store.clone(),
                broker.producer(),
                RelayConfig::default(),
                Arc::clone(&now),
                handle.clone(),
            );
            let (gate, stop) = (gate.clone(), stop.clone());
            Box::pin(async move {
                if gate.open(&stop).await {
                    relay.run(stop).await;
                }
            })
        });
        wake
    }

    /// Tells the active relay of another process what is recorded here, and this one what is recorded there.
    fn bells(&self, service: &Service, store: &SqlStore, relay: &RelayHandle) {
        if self.notifications.is_none() {
            return;
        }
        let (store, relay, stop) = (store.clone(), relay.clone(), self.relay_stop.clone());
        self.supervisor.run(&format!("{} bells", service.name), move || {
            Box::pin(bells::ring(store.clone(), relay.clone(), stop.clone()))
        });
    }

    fn scheduler(
        &self,
        service: &Service,
        store: SqlStore,
        jobs: Vec<scheduler::Job<SqlStore>>,
        relay: RelayHandle,
    ) -> Running<SqlStore> {
        let scheduler = Scheduler::new(service.name, store, Arc::clone(&self.clock))
            .work(self.runtimes.work.handle().clone(), WORK_THREADS)
            .on_effect(Arc::new(move || relay.wake()))
            .jobs(jobs);
        let _on_keep = self.runtimes.keep.enter();
        scheduler.start()
    }

    fn listeners(
        &self,
        service: &Service,
        api: &DatabaseConnection,
        listens: &[Arc<dyn inbox::Listen>],
        gate: &Gate,
        running: &Running<SqlStore>,
        relay: &RelayHandle,
    ) -> Vec<Arc<Listener>> {
        let mut listeners = Vec::new();
        for listen in listens {
            let (jobs, relay) = (running.handle(), relay.clone());
            let listener = Arc::new(Listener::new(
                service.name,
                api.clone(),
                Arc::clone(&self.broker),
                Arc::clone(listen),
                ListenerConfig::default(),
                self.now(),
                Box::new(move || {
                    jobs.changed();
                    relay.wake();
                }),
            ));
            listeners.push(Arc::clone(&listener));
            let (gate, stop) = (gate.clone(), self.stop.clone());
            self.supervisor.run(&format!("{} listener {}", service.name, listen.name()), move || {
                let (listener, gate, stop) = (Arc::clone(&listener), gate.clone(), stop.clone());
                Box::pin(async move {
                    if gate.open(&stop).await {
                        listener.run(stop).await;
                    }
                })
            });
        }
        listeners
    }

    /// Loops of the process itself: folding histograms, saying that it lives, forgetting old events.
    fn upkeep(&self, recorder: metrics_exporter_prometheus::PrometheusHandle, embedded: Option<Arc<EmbeddedBroker>>) {
        let (health, stop) = (self.health.clone(), self.stop.clone());
        self.runtimes.keep.spawn(async move {
            while !stop.is_cancelled() {
                recorder.run_upkeep();
                health.alive("keep", metrics::UPKEEP * 4);
                let _stopped = tokio::time::timeout(metrics::UPKEEP, stop.cancelled()).await;
            }
            health.ended("keep");
        });
        let Some(log) = embedded else { return };
        let (clock, stop) = (Arc::clone(&self.clock), self.stop.clone());
        self.supervisor.run("embedded log", move || {
            let (log, clock, stop) = (Arc::clone(&log), Arc::clone(&clock), stop.clone());
            Box::pin(async move {
                while !stop.is_cancelled() {
                    match log.prune(clock.now(), 1_000).await {
                        Ok(gone) if gone >= 1_000 => continue,
                        Ok(_) => {}
                        Err(error) => tracing::warn!(%error, "old events were not forgotten"),
                    }
                    let _stopped = tokio::time::timeout(PRUNE_LOG, stop.cancelled()).await;
                }
            })
        });
    }
}

/// Brings the tables of services up to date and ends.
pub(crate) async fn migrate_all(services: &[Service], config: &Config) -> anyhow::Result<()> {
    for service in services {
        let place = Place::of(&config.process.database, service.name);
        let db = place.pool(service.name, Pool::Keep)?;
        let upgrade = Upgrade::of(service, &place, db.clone());
        upgrade
            .run()
            .await
            .with_context(|| format!("the tables of {} could not be brought up to date", service.name))?;
        tracing::info!(service = service.name, "tables are up to date");
        db.close().await?;
    }
    Ok(())
}
