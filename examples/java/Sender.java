import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/** Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged. */
public final class Sender {
    private static final int BATCH_SIZE = 1_000;
    private static final int CAPACITY = 10_000;
    private static final long LINGER_NANOS = 200_000_000;
    /**
     * The batch itself is at fault, so a repetition would be refused, too. Any other failure may pass: a fault of the
     * network, of the service, or of a key or an address that the operator corrects.
     */
    private static final Set<Integer> PERMANENT = Set.of(400, 413, 415, 422);
    /** Ends the queue. No visit is empty. */
    private static final String END = "";

    private record Answer(int status, String body, long retryAfterSeconds) {}

    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final URI uri;
    private final String apiKey;
    private final BlockingQueue<String> queue = new ArrayBlockingQueue<>(CAPACITY);
    private final CountDownLatch closing = new CountDownLatch(1);
    private final Thread worker = new Thread(this::run, "sender");
    /** Of `System.nanoTime`, once the sender is closing. */
    private volatile long deadline;
    volatile long recorded, acknowledged, rejected, dropped;

    /** Creates a sender. Without access control `apiKey` is null. */
    public Sender(String url, String apiKey) {
        this.uri = URI.create(url.replaceAll("/+$", "") + "/segments/batch");
        this.apiKey = apiKey;
        worker.setDaemon(true);
        worker.start();
    }

    /** Queues a visit that happens now. Blocks while the queue is full. */
    public synchronized void record(String user, String segment) throws InterruptedException {
        if (isClosing()) {
            throw new IllegalStateException("the sender is closed");
        }
        // Without a time of its own, a repeated visit would count from its repetition.
        String visit = "{\"user_id\":%s,\"segment\":%s,\"seen_at\":\"%s\"}";
        queue.put(visit.formatted(quote(user), quote(segment), Instant.now()));
        recorded++;
    }

    /** Sends what is queued, for about the timeout. Returns whether no visit was dropped. */
    public boolean close(Duration timeout) throws InterruptedException {
        deadline = System.nanoTime() + timeout.toNanos();
        closing.countDown();
        synchronized (this) {
            queue.put(END);
        }
        worker.join();
        return dropped == 0;
    }

    private void run() {
        try {
            boolean isOpen = true;
            while (isOpen) {
                List<String> batch = new ArrayList<>();
                String visit = queue.take();
                long end = System.nanoTime() + LINGER_NANOS;
                while (visit != null && !visit.equals(END)) {
                    batch.add(visit);
                    boolean isFull = batch.size() == BATCH_SIZE;
                    visit = isFull ? null : queue.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
                }
                isOpen = !END.equals(visit);
                if (!batch.isEmpty()) {
                    deliver(batch);
                }
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void deliver(List<String> batch) throws InterruptedException {
        String failure = "the time to close is over";
        for (long backoff = 100; !isLate(); backoff = Math.min(2 * backoff, 10_000)) {
            Answer answer = post(batch);
            long accepted = number(answer.body, "accepted");
            if (Set.of(200, 422).contains(answer.status) && accepted >= 0) {
                acknowledged += accepted + number(answer.body, "expired");
                long bad = number(answer.body, "rejected");
                rejected += bad;
                if (bad > 0) {
                    // The report names each by its line.
                    log("rejected " + bad + " of " + batch.size() + " visits: " + answer.body);
                }
                return;
            }
            failure = answer.status + ": " + answer.body.strip();
            if (PERMANENT.contains(answer.status)) {
                break;
            }
            // Full jitter: senders that failed together come back at different times.
            long jitter = ThreadLocalRandom.current().nextLong(backoff);
            long delay = Math.min(answer.retryAfterSeconds, 60) * 1_000 + jitter;
            log("repeating " + batch.size() + " visits in " + delay + " ms after " + failure);
            sleep(delay);
        }
        dropped += batch.size();
        log("dropped " + batch.size() + " visits after " + failure);
    }

    /** Posts a batch. The status is 0 if there is no answer. */
    private Answer post(List<String> batch) throws InterruptedException {
        var request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10));
        request.header("content-type", "application/x-ndjson");
        if (apiKey != null) {
            request.header("authorization", "Bearer " + apiKey);
        }
        request.POST(HttpRequest.BodyPublishers.ofString(String.join("\n", batch)));
        try {
            HttpResponse<String> response = client.send(request.build(), BodyHandlers.ofString());
            String seconds = response.headers().firstValue("retry-after").orElse("0");
            seconds = seconds.matches("\\d{1,9}") ? seconds : "0";
            return new Answer(response.statusCode(), response.body(), Long.parseLong(seconds));
        } catch (IOException error) {
            return new Answer(0, error.toString(), 0);
        }
    }

    /** Waits for `delay` milliseconds, or until the sender is closed, or until the time to close is over. */
    private void sleep(long delay) throws InterruptedException {
        if (isClosing()) {
            long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
            Thread.sleep(Math.max(0, Math.min(delay, left)));
        } else {
            closing.await(delay, TimeUnit.MILLISECONDS);
        }
    }

    private boolean isClosing() {
        return closing.getCount() == 0;
    }

    private boolean isLate() {
        return isClosing() && System.nanoTime() > deadline;
    }

    /** Logs to standard error. At a shutdown java.util.logging is reset before the last visits are sent. */
    private static void log(String message) {
        System.err.println(message);
    }

    /** Returns a number of a report, or -1. Java has no JSON in its standard library. */
    private static long number(String report, String member) {
        var matcher = Pattern.compile("\"%s\"\\s*:\\s*(\\d+)".formatted(member)).matcher(report);
        return matcher.find() ? Long.parseLong(matcher.group(1)) : -1;
    }

    /** Returns `text` as a string of JSON. */
    private static String quote(String text) {
        var json = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append("\\u%04x".formatted((int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"').toString();
    }
}
