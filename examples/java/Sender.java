import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Pattern;

/** Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged. */
public final class Sender {
    private static final int BATCH_SIZE = 1_000;
    private static final int CAPACITY = 10_000;
    private static final long LINGER_MILLIS = 200;
    private static final long TIMEOUT_SECONDS = 10;
    /**
     * The batch itself is at fault, so a repetition would be refused, too. Any other failure may pass: a fault of the
     * network, of the service, or of a key or an address that the operator corrects.
     */
    private static final Set<Integer> PERMANENT = Set.of(400, 413, 415, 422);

    private static final Pattern ERROR = Pattern.compile("\\{\"line\":(\\d+)[^}]*}");

    private record Answer(int status, String body, long retryAfterSeconds) {}

    /** What became of the visits. */
    public final AtomicLong recorded = new AtomicLong(), acknowledged = new AtomicLong(), rejected = new AtomicLong(),
            dropped = new AtomicLong();

    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final HttpRequest.Builder request;
    private final Queue<String> queue = new ArrayDeque<>();
    private boolean isClosing;
    private final Thread worker = new Thread(this::run, "sender");

    /** Creates a sender. Without access control `apiKey` is null. Fails if the URL or the key is not valid. */
    public Sender(String url, String apiKey) {
        request = HttpRequest.newBuilder(URI.create(url.replaceAll("/+$", "") + "/segments/batch"));
        request.header("content-type", "application/x-ndjson");
        if (apiKey != null) {
            request.header("authorization", "Bearer " + apiKey.strip());
        }
        worker.setDaemon(true);
        worker.start();
    }

    /** Queues a visit that happens now. Blocks while the queue is full. */
    public synchronized void record(String user, String segment) throws InterruptedException {
        // Without a time of its own, a repeated visit would count from its repetition.
        String visit = "{\"user_id\":%s,\"segment\":%s,\"seen_at\":\"%s\"}";
        visit = visit.formatted(quote(user), quote(segment), Instant.now());
        while (queue.size() >= CAPACITY && !isClosing) {
            wait();
        }
        if (isClosing) {
            throw new IllegalStateException("the sender is closed");
        }
        queue.add(visit);
        recorded.incrementAndGet();
        if (queue.size() >= BATCH_SIZE) {
            notifyAll();
        }
    }

    /** Sends what is queued. Returns whether each visit was acknowledged or rejected within the timeout. */
    public boolean close(Duration timeout) throws InterruptedException {
        synchronized (this) {
            isClosing = true;
            notifyAll();
        }
        worker.join(timeout.toMillis());
        return recorded.get() == acknowledged.get() + rejected.get();
    }

    private void run() {
        try {
            for (List<String> batch; (batch = takeBatch()) != null; ) {
                if (!batch.isEmpty()) {
                    deliver(batch);
                }
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Returns the next batch, which may be empty, or null after the last. */
    private synchronized List<String> takeBatch() throws InterruptedException {
        if (!isClosing && queue.size() < BATCH_SIZE) {
            wait(LINGER_MILLIS);
        }
        List<String> batch = new ArrayList<>();
        while (batch.size() < BATCH_SIZE && !queue.isEmpty()) {
            batch.add(queue.remove());
        }
        notifyAll();
        return isClosing && batch.isEmpty() ? null : batch;
    }

    private void deliver(List<String> batch) throws InterruptedException {
        for (long backoff = 100; ; backoff = Math.min(2 * backoff, 10_000)) {
            Answer answer = post(batch);
            long accepted = number(answer.body, "accepted");
            if (Set.of(200, 422).contains(answer.status) && accepted >= 0) {
                acknowledged.addAndGet(accepted + number(answer.body, "expired"));
                rejected.addAndGet(number(answer.body, "rejected"));
                // The report names up to 100 visits by their line.
                for (var errors = ERROR.matcher(answer.body); errors.find(); ) {
                    String visit = batch.get(Integer.parseInt(errors.group(1)) - 1);
                    System.err.println("rejected " + visit + ": " + errors.group());
                }
                return;
            }
            String failure = batch.size() + " visits after " + answer.status + ": " + answer.body;
            if (PERMANENT.contains(answer.status)) {
                dropped.addAndGet(batch.size());
                System.err.println("dropped " + failure);
                return;
            }
            System.err.println("repeating " + failure);
            // Full jitter: senders that failed together come back at different times.
            long jitter = ThreadLocalRandom.current().nextLong(backoff);
            pause(Math.min(answer.retryAfterSeconds, 60) * 1_000 + jitter);
        }
    }

    /** Sleeps until the sender is closed, and from then on for a second at most. */
    private synchronized void pause(long millis) throws InterruptedException {
        boolean wasClosing = isClosing;
        long end = System.nanoTime() + 1_000_000 * (wasClosing ? Math.min(millis, 1_000) : millis);
        for (long left; (left = (end - System.nanoTime()) / 1_000_000) > 0 && isClosing == wasClosing; ) {
            wait(left);
        }
    }

    /** Posts a batch. The status is 0 if there is no answer. */
    private Answer post(List<String> batch) throws InterruptedException {
        request.POST(BodyPublishers.ofString(String.join("\n", batch)));
        try {
            // The timeout of a request ends with the head of its answer.
            var answer = client.sendAsync(request.build(), BodyHandlers.ofString());
            var response = answer.orTimeout(TIMEOUT_SECONDS, TimeUnit.SECONDS).get();
            String seconds = response.headers().firstValue("retry-after").orElse("");
            long retryAfter = seconds.matches("\\d{1,9}") ? Long.parseLong(seconds) : 0;
            return new Answer(response.statusCode(), response.body(), retryAfter);
        } catch (ExecutionException error) {
            return new Answer(0, error.toString(), 0);
        }
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
            json.append(c == '"' || c == '\\' || c < ' ' ? "\\u%04x".formatted((int) c) : String.valueOf(c));
        }
        return json.append('"').toString();
    }
}
