// River does no-op jobs: main URL burn COUNT | latency COUNT; told as shared/test-kit/peers/README.md says.
// Settings: those of `river bench`: 2,000 workers, a fetch cooldown of 2 ms and a poll of 20 ms.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const inserted = 5000

type noop struct{}

func (noop) Kind() string { return "noop" }

type worker struct {
	river.WorkerDefaults[noop]
	started chan time.Time
}

func (w *worker) Work(context.Context, *river.Job[noop]) error {
	if w.started != nil {
		w.started <- time.Now()
	}
	return nil
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ready() {
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
}

func main() {
	ctx, url, mode := context.Background(), os.Args[1], os.Args[2]
	count := must(strconv.Atoi(os.Args[3]))
	config := must(pgxpool.ParseConfig(url))
	config.MaxConns = 10
	pool := must(pgxpool.NewWithConfig(ctx, config))
	migrator := must(rivermigrate.New(riverpgxv5.New(pool), nil))
	must(migrator.Migrate(ctx, rivermigrate.DirectionUp, nil))

	work := &worker{}
	workers := river.NewWorkers()
	river.AddWorker(workers, work)
	client := must(river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2000}},
		Workers:           workers,
	}))
	if mode == "burn" {
		burn(ctx, pool, client, count)
	} else {
		work.started = make(chan time.Time, 1)
		latency(ctx, client, work, count)
	}
	check(client.Stop(ctx))
}

func burn[T any](ctx context.Context, pool *pgxpool.Pool, client *river.Client[T], count int) {
	for done := 0; done < count; done += inserted {
		jobs := make([]river.InsertManyParams, min(inserted, count-done))
		for at := range jobs {
			jobs[at] = river.InsertManyParams{Args: noop{}}
		}
		must(client.InsertManyFast(ctx, jobs))
	}
	must(pool.Exec(ctx, "VACUUM ANALYZE river_job"))
	ready()
	began := time.Now()
	check(client.Start(ctx))
	for left := true; left; time.Sleep(20 * time.Millisecond) {
		question := "SELECT EXISTS (SELECT 1 FROM river_job WHERE state = 'available' OR state = 'running')"
		check(pool.QueryRow(ctx, question).Scan(&left))
		if !left {
			break
		}
	}
	fmt.Println(time.Since(began).Seconds())
}

func latency[T any](ctx context.Context, client *river.Client[T], work *worker, count int) {
	check(client.Start(ctx))
	ready()
	for range count {
		asked := time.Now()
		must(client.Insert(ctx, noop{}, nil))
		fmt.Println(float64((<-work.started).Sub(asked).Microseconds()) / 1000)
		time.Sleep(20 * time.Millisecond)
	}
}
