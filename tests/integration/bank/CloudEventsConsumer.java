import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.CloudEventDeserializer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads a topic from its beginning with the CloudEvents SDK, and prints the given number of events: attributes and data,
 * separated by tabs. Ends after ninety seconds in any case.
 */
class CloudEventsConsumer {
  public static void main(String[] arguments) {
    String servers = arguments[0];
    String topic = arguments[1];
    int missing = Integer.parseInt(arguments[2]);
    Map<String, Object> settings =
        Map.of("bootstrap.servers", servers, "group.id", "java", "auto.offset.reset", "earliest");
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new CloudEventDeserializer())) {
      consumer.subscribe(List.of(topic));
      Instant deadline = Instant.now().plusSeconds(90);
      while (missing > 0 && Instant.now().isBefore(deadline)) {
        for (ConsumerRecord<String, CloudEvent> record : consumer.poll(Duration.ofMillis(200))) {
          CloudEvent event = record.value();
          String data = new String(event.getData().toBytes(), StandardCharsets.UTF_8);
          System.out.println(
              String.join(
                  "\t",
                  event.getSpecVersion().toString(),
                  event.getId(),
                  event.getSource().toString(),
                  event.getType(),
                  event.getTime().toInstant().toString(),
                  event.getDataContentType(),
                  record.key(),
                  data));
          missing--;
        }
      }
    }
  }
}
