import com.github.kagkarlsson.scheduler.Scheduler;
import com.github.kagkarlsson.scheduler.task.helper.OneTimeTask;
import com.github.kagkarlsson.scheduler.task.helper.Tasks;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.net.URI;
import java.sql.Connection;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * db-scheduler does no-op jobs: {@code URL burn COUNT} or {@code URL latency COUNT}. Settings: lock-and-fetch, as its documentation advises
 * for throughput, twenty threads and a poll of 100 ms; what is put in starts at once.
 */
public final class DbScheduler {
  private static final String TABLE = """
      CREATE TABLE scheduled_tasks (task_name text NOT NULL, task_instance text NOT NULL, task_data bytea,
        execution_time timestamptz NOT NULL, picked boolean NOT NULL, picked_by text, last_success timestamptz,
        last_failure timestamptz, consecutive_failures integer, last_heartbeat timestamptz, version bigint NOT NULL,
        priority smallint, state text, PRIMARY KEY (task_name, task_instance));
      CREATE INDEX ON scheduled_tasks (execution_time);
      CREATE INDEX ON scheduled_tasks (last_heartbeat)""";

  public static void main(String[] given) throws Exception {
    var settings = new HikariConfig();
    var url = URI.create(given[0]);
    settings.setJdbcUrl("jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath());
    String[] user = url.getUserInfo().split(":", 2);
    settings.setUsername(user[0]);
    settings.setPassword(user.length > 1 ? user[1] : "");
    settings.setMaximumPoolSize(20);
    int count = Integer.parseInt(given[2]);
    var started = new LinkedBlockingQueue<Long>();
    boolean burning = given[1].equals("burn");
    try (var pool = new HikariDataSource(settings)) {
      run(pool, TABLE);
      OneTimeTask<Void> noop = Tasks.oneTime("noop").execute((instance, context) -> {
        if (!burning) {
          started.add(System.nanoTime());
        }
      });
      var scheduler = Scheduler.create(pool, noop).threads(20).pollUsingLockAndFetch(0.5, 4.0)
          .pollingInterval(Duration.ofMillis(100)).enableImmediateExecution().build();
      if (burning) {
        run(pool, "INSERT INTO scheduled_tasks (task_name, task_instance, execution_time, picked, version)"
            + " SELECT 'noop', n::text, now(), false, 1 FROM generate_series(1, " + count + ") n");
        run(pool, "VACUUM ANALYZE scheduled_tasks");
        Told.ready();
        long began = System.nanoTime();
        scheduler.start();
        while (left(pool)) {
          Thread.sleep(20);
        }
        System.out.println((System.nanoTime() - began) / 1e9);
      } else {
        scheduler.start();
        Told.ready();
        for (int job = 0; job < count; job++) {
          long asked = System.nanoTime();
          scheduler.schedule(noop.instance("job" + job), Instant.now());
          System.out.println((started.take() - asked) / 1e6);
          Thread.sleep(20);
        }
      }
      scheduler.stop();
    }
  }

  private static void run(HikariDataSource pool, String statement) throws SQLException {
    try (Connection connection = pool.getConnection(); var prepared = connection.createStatement()) {
      prepared.execute(statement);
    }
  }

  private static boolean left(HikariDataSource pool) throws SQLException {
    try (Connection connection = pool.getConnection();
        var answer = connection.createStatement().executeQuery("SELECT EXISTS (SELECT 1 FROM scheduled_tasks)")) {
      return answer.next() && answer.getBoolean(1);
    }
  }
}
