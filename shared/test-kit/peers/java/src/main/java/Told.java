import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;

/** What is said to the bench, as shared/test-kit/peers/README.md has it. */
final class Told {
  private static final BufferedReader LINES = new BufferedReader(new InputStreamReader(System.in));

  private Told() {}

  static void ready() throws IOException {
    System.out.println("ready");
    LINES.readLine();
  }
}
