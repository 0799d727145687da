# The front door for people. `make` alone tells what there is.
.DEFAULT_GOAL := help
SHELL := bash
servers := shared/test-kit/servers
args ?=

.PHONY: help run demo test sim alike oracle storm planted mutants fuzz described test-clients test-keycloak build fmt lint tidy bench bench-peers bench-check docs services-up services-down

help: ## What there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

run: build ## Start the whole platform on embedded defaults (SQLite, embedded event log) under ./data
	@exec target/debug/belfry up $(args)

demo: build ## The same with a small story: posts due in a few seconds
	@deploy/demo.sh target/debug/belfry

build: ## Install what building needs, and build
	@$(servers)/prerequisites.sh build
	@cargo build --quiet --package belfry --package blog

test: ## Set up everything the tests need (PostgreSQL, Kafka) and run them all
	@$(servers)/prerequisites.sh test
	@$(servers)/with-servers.sh cargo test --workspace $(args)

sim: ## Simulate the scheduler: SEEDS=10000 runs that many days, SEED=42 replays one and tells its story
	@SIM_SEEDS=$(or $(SEEDS),2000) $(if $(SEED),SIM_SEED=$(SEED)) cargo test --release --quiet --package scheduler --test sim -- every_promise --nocapture

alike: ## The three stores, and the log and Kafka, side by side: OPERATIONS=1000000 SEED=7
	@$(servers)/prerequisites.sh test
	@STORE_OPERATIONS=$(or $(OPERATIONS),400000) STORE_SEED=$(or $(SEED),1) BROKER_STEPS=$(or $(STEPS),600) BROKER_SEED=$(or $(SEED),1) \
		$(servers)/with-servers.sh cargo test --package scheduler --package broker --test it -- alike --nocapture

oracle: ## Next instants against implementations that are not ours: INSTANTS=5000000
	@$(servers)/prerequisites.sh test
	@ORACLE_INSTANTS=$(or $(INSTANTS),5000000) $(servers)/with-servers.sh cargo test --package scheduler --test oracle -- --nocapture

storm: ## Kills, stops, networks, clocks, disks and crash points on real servers for an hour and a half, then the audit: SEED=7
	@$(servers)/prerequisites.sh test
	@STORM=long STORM_SEED=$(or $(SEED),1) BELFRY_POSTGRES=durable $(servers)/with-servers.sh \
		cargo test --package belfry --test storm -- --nocapture

planted: ## Remove one protection after the other from a copy of the tree: the test named in each patch must fail
	@$(servers)/prerequisites.sh test
	@$(servers)/with-servers.sh shared/test-kit/planted/run.sh $(args)

mutants: ## Change the pure core in every small way: at least 95 of 100 changes must be noticed, the others have a reason
	@$(servers)/prerequisites.sh build
	@shared/test-kit/mutants/run.sh

fuzz: ## Bytes that break readers, round after round until it is stopped: FUZZ=20 times those of `make test`, ROUNDS=1
	@$(servers)/prerequisites.sh test
	@for round in $$(seq 1 $(or $(ROUNDS),1000000)); do \
		FUZZ=$(or $(FUZZ),20) cargo test --quiet --tests --package events --package service-kit --package broker --package blog \
			--package belfry -- fuzz || exit 1; echo "round $$round is over"; done

described: ## A client that knows only the API descriptions asks everything: EXAMPLES=3000 (more than 100,000 requests)
	@$(servers)/prerequisites.sh test
	@SCHEMATHESIS_EXAMPLES=$(or $(EXAMPLES),3000) $(servers)/with-servers.sh \
		cargo test --quiet --package belfry --test it -- described --nocapture

test-clients: build ## Clients that are not ours: kcat, CloudEvents SDK, feedparser, validators
	@$(servers)/prerequisites.sh test
	@$(servers)/with-servers.sh shared/test-kit/clients/check.sh target/debug/belfry

test-keycloak: ## Tokens of a real Keycloak
	@$(servers)/prerequisites.sh test
	@$(servers)/with-keycloak.sh cargo test --package service-kit --test it -- --ignored keycloak

fmt: ## Format
	@cargo fmt --all

lint: ## Format check and lints
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings

tidy: ## Is the house in order
	@cargo test --package test-kit --test tidy

bench: ## Figures, as ratios to limits measured in the same run
	@$(servers)/prerequisites.sh test
	@cargo build --quiet --release --package blog --package belfry
	@BELFRY_POSTGRES=durable $(servers)/with-servers.sh cargo bench --package blog --bench figures -- $(args)

bench-peers: ## What eight peers reach with the same work in the same rounds; without its toolchain a peer is left out
	@$(servers)/prerequisites.sh test
	@shared/test-kit/peers/build.sh
	@BELFRY_POSTGRES=durable $(servers)/with-servers.sh cargo bench --package blog --bench figures -- peers $(args)

bench-check: ## Instructions, allocations, statements and rows beside the committed ones; BLESS=1 writes them anew
	@$(servers)/prerequisites.sh test
	@$(servers)/with-servers.sh cargo bench --quiet --profile dev --package blog --bench costs

docs: ## Write the generated pages anew
	@BLESS=1 cargo test --quiet --package belfry --package events catalogue

services-up: ## A private PostgreSQL and Kafka for development; prints what to export
	@$(servers)/prerequisites.sh test
	@$(servers)/development.sh up

services-down: ## End them
	@$(servers)/development.sh down
