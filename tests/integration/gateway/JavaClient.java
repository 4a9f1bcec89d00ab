import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

/**
 * Sends requests with the default HTTP client of the JDK: over plain HTTP, each request has `Upgrade: h2c`.
 * Arguments: base URL, path of the transfers, body, token. It writes one line for each response: status, version, body.
 */
public class JavaClient {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        URI transfers = URI.create(arguments[0] + arguments[1]);
        String body = arguments[2], token = arguments[3];
        for (BodyPublisher publisher : new BodyPublisher[] {
            BodyPublishers.ofString(body),
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body.getBytes())),  // chunked
            BodyPublishers.ofString(body + " ".repeat(50_000)),
        }) {
            send(HttpRequest.newBuilder(transfers).POST(publisher), token);
        }
        send(HttpRequest.newBuilder(URI.create(arguments[0] + "/health/live")).GET(), token);
    }

    private static void send(HttpRequest.Builder request, String token) throws Exception {
        HttpResponse<String> response = CLIENT.send(
            request
                .header("Authorization", "Bearer " + token)
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", "java")
                .build(),
            BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.version() + " " + response.body());
    }
}
