import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

/** Sends visits from standard input, one `user<TAB>segment` a line, until its end or SIGTERM. */
public final class Main {
    public static void main(String[] args) throws Exception {
        String url = System.getenv().getOrDefault("SEGMENTS_URL", "http://localhost:8080");
        Sender sender = new Sender(url, System.getenv("SEGMENTS_API_KEY"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> finish(sender)));
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try {
            for (String line; (line = input.readLine()) != null; ) {
                String[] visit = (line + "\t").split("\t", -1);
                sender.record(visit[0], visit[1]);
            }
        } catch (IllegalStateException closed) {
            return; // By a signal.
        }
        System.exit(0);
    }

    /** Runs at the end of the input and at a signal. */
    private static void finish(Sender sender) {
        boolean isComplete = false;
        try {
            isComplete = sender.close(Duration.ofSeconds(20));
        } catch (InterruptedException interrupted) {
            System.err.println("interrupted");
        }
        System.out.printf("%s recorded, %s acknowledged, %s rejected, %s dropped%n", sender.recorded,
                sender.acknowledged, sender.rejected, sender.dropped);
        // Otherwise the exit code after a signal is 143.
        Runtime.getRuntime().halt(isComplete ? 0 : 1);
    }
}
