package headcount.zookeeper;

import static org.apache.zookeeper.KeeperException.Code.OK;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Scanner;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/**
 * The load of ZooKeeper: sessions that each have one request under way. It is steered by lines of standard input, and
 * answers each by a line of JSON.
 */
public final class Client {
  private static final int SESSION_TIMEOUT_MS = 30_000;

  /** Nodes that one transaction makes. */
  private static final int BATCH = 100;

  private final List<ZooKeeper> sessions = new ArrayList<>();

  /** The path and the data of each endpoint. */
  private final List<String> paths = new ArrayList<>();

  private final List<byte[]> data = new ArrayList<>();

  /** Begins the next request of a session; {@code end} is to be called when it is answered. */
  private interface Request {
    void begin(ZooKeeper session, int number, Answered end);
  }

  private interface Answered {
    void with(boolean right);
  }

  private Client(int port, int connections, Path lines) throws Exception {
    for (String line : Files.readAllLines(lines)) {
      String[] parts = line.split("\t", 2);
      paths.add(parts[0]);
      data.add(parts[1].getBytes(StandardCharsets.UTF_8));
    }
    for (int number = 0; number < connections; number++) {
      CountDownLatch connected = new CountDownLatch(1);
      sessions.add(
          new ZooKeeper(
              "127.0.0.1:" + port,
              SESSION_TIMEOUT_MS,
              event -> {
                if (event.getState() == KeeperState.SyncConnected) {
                  connected.countDown();
                }
              }));
      if (!connected.await(SESSION_TIMEOUT_MS, TimeUnit.MILLISECONDS)) {
        throw new IllegalStateException("no session within " + SESSION_TIMEOUT_MS + " ms");
      }
    }
  }

  /** Arguments: the port, the number of sessions, and a file with a path, a tabulator and data in each line. */
  public static void main(String[] arguments) throws Exception {
    Client client =
        new Client(Integer.parseInt(arguments[0]), Integer.parseInt(arguments[1]), Path.of(arguments[2]));
    System.out.println("{}");
    Scanner commands = new Scanner(System.in);
    while (commands.hasNextLine()) {
      String[] words = commands.nextLine().split(" ");
      switch (words[0]) {
        case "create" -> client.create(Integer.parseInt(words[1]), Integer.parseInt(words[2]));
        case "read" -> client.measure(Double.parseDouble(words[2]), client.read(words[1]));
        case "set" -> client.measure(Double.parseDouble(words[1]), client::set);
        default -> throw new IllegalArgumentException("no command " + words[0] + "; there are create, read, set");
      }
    }
    System.exit(0);
  }

  /** Makes the nodes of a range of endpoints, which end with their session as an instance's would. */
  private void create(int from, int to) throws Exception {
    ZooKeeper session = sessions.get(0);
    for (int begin = from; begin < to; begin += BATCH) {
      List<Op> nodes = new ArrayList<>();
      for (int number = begin; number < Math.min(begin + BATCH, to); number++) {
        String path = paths.get(number);
        for (int at = path.indexOf('/', 1); at > 0; at = path.indexOf('/', at + 1)) {
          String parent = path.substring(0, at);
          if (session.exists(parent, false) == null) {
            session.create(parent, new byte[0], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
          }
        }
        nodes.add(Op.create(path, data.get(number), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL));
      }
      session.multi(nodes);
    }
    System.out.println("{}");
  }

  /** Reads a service: its children, and then the data of all in one request. */
  private Request read(String service) {
    long expected = paths.stream().filter(path -> path.startsWith(service + "/")).count();
    return (session, number, end) ->
        session.getChildren(
            service,
            false,
            (code, path, context, children) -> {
              if (code != OK.intValue()) {
                end.with(false);
                return;
              }
              List<Op> all = new ArrayList<>(children.size());
              for (String child : children) {
                all.add(Op.getData(service + "/" + child));
              }
              session.multi(
                  all,
                  (status, nothing, same, results) ->
                      end.with(
                          status == OK.intValue()
                              && results.size() == expected
                              && results.stream().allMatch(OpResult.GetDataResult.class::isInstance)),
                  null);
            },
            null);
  }

  /** Sets the data of one endpoint, as it is; the answer comes after the log was flushed. */
  private void set(ZooKeeper session, int number, Answered end) {
    int at = (int) (number * 7_919L % paths.size());
    session.setData(
        paths.get(at), data.get(at), -1, (code, path, context, stat) -> end.with(code == OK.intValue()), null);
  }

  /** Lets every session send one request after another for so long. */
  private void measure(double seconds, Request request) throws InterruptedException {
    long begun = System.nanoTime();
    long end = begun + (long) (seconds * 1e9);
    AtomicLong failed = new AtomicLong();
    CountDownLatch running = new CountDownLatch(sessions.size());
    List<List<Long>> took = new ArrayList<>();
    for (int number = 0; number < sessions.size(); number++) {
      List<Long> mine = new ArrayList<>();
      took.add(mine);
      next(request, sessions.get(number), number, end, mine, failed, running);
    }
    running.await();
    long nanoseconds = System.nanoTime() - begun;
    long[] sorted = took.stream().flatMap(List::stream).mapToLong(Long::longValue).toArray();
    Arrays.sort(sorted);
    System.out.printf(
        "{\"requests\": %d, \"microseconds\": %d, \"p50\": %d, \"p99\": %d, \"failed\": %d}%n",
        sorted.length,
        nanoseconds / 1000,
        sorted[sorted.length / 2] / 1000,
        sorted[(int) (sorted.length * 0.99)] / 1000,
        failed.get());
  }

  private void next(
      Request request,
      ZooKeeper session,
      int number,
      long end,
      List<Long> took,
      AtomicLong failed,
      CountDownLatch running) {
    long begun = System.nanoTime();
    request.begin(
        session,
        number,
        right -> {
          long now = System.nanoTime();
          took.add(now - begun);
          if (!right) {
            failed.incrementAndGet();
          }
          if (now < end) {
            next(request, session, number + sessions.size(), end, took, failed, running);
          } else {
            running.countDown();
          }
        });
  }
}
