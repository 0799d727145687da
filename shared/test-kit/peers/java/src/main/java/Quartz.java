import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Arrays;
import java.util.Date;
import java.util.Properties;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.quartz.Job;
import org.quartz.JobBuilder;
import org.quartz.JobExecutionContext;
import org.quartz.Scheduler;
import org.quartz.SimpleScheduleBuilder;
import org.quartz.TriggerBuilder;
import org.quartz.impl.StdSchedulerFactory;

/**
 * Quartz runs jobs each second, spread over it: {@code - fires COUNT}. Settings: its store in memory, ten threads as by default, and
 * triggers taken by hundreds, as its documentation advises where many fire at once.
 */
public final class Quartz {
  private static final long FIRST = 3_000;
  private static final long WINDOW = 10_000;
  private static final ConcurrentLinkedQueue<Double> LATE = new ConcurrentLinkedQueue<>();
  private static volatile long counted = Long.MAX_VALUE;

  public static final class Noting implements Job {
    @Override
    public void execute(JobExecutionContext context) {
      var now = Instant.now();
      long due = context.getScheduledFireTime().getTime();
      if (due >= counted && due < counted + WINDOW) {
        LATE.add(ChronoUnit.MICROS.between(Instant.ofEpochMilli(due), now) / 1_000.0);
      }
    }
  }

  public static void main(String[] given) throws Exception {
    int count = Integer.parseInt(given[2]);
    var settings = new Properties();
    settings.setProperty("org.quartz.scheduler.skipUpdateCheck", "true");
    settings.setProperty("org.quartz.threadPool.class", "org.quartz.simpl.SimpleThreadPool");
    settings.setProperty("org.quartz.threadPool.threadCount", "10");
    settings.setProperty("org.quartz.scheduler.batchTriggerAcquisitionMaxCount", "100");
    Scheduler scheduler = new StdSchedulerFactory(settings).getScheduler();
    Told.ready();
    // Triggers are put in before the first of them is due.
    long begin = System.currentTimeMillis() + FIRST + count / 20;
    for (int number = 0; number < count; number++) {
      var at = new Date(begin + 1_000L * number / count);
      var job = JobBuilder.newJob(Noting.class).withIdentity("job" + number).build();
      var every = SimpleScheduleBuilder.simpleSchedule().withIntervalInSeconds(1).repeatForever();
      scheduler.scheduleJob(job, TriggerBuilder.newTrigger().startAt(at).withSchedule(every).build());
    }
    counted = begin + FIRST;
    scheduler.start();
    Thread.sleep(Math.max(counted - System.currentTimeMillis(), 0));
    System.out.println("counting");
    Thread.sleep(Math.max(counted + WINDOW + 1_000 - System.currentTimeMillis(), 0));
    double[] late = LATE.stream().mapToDouble(Double::doubleValue).toArray();
    Arrays.sort(late);
    System.out.println(late.length + " " + at(late, 50) + " " + at(late, 99));
    Told.ready();
    scheduler.shutdown(false);
  }

  private static double at(double[] sorted, int part) {
    return sorted.length == 0 ? Double.NaN : sorted[(int) Math.min((long) sorted.length * part / 100, sorted.length - 1)];
  }
}
