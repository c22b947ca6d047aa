import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Timer;
import java.util.TimerTask;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;

/** The driver script for JDBC: DriverTest PORT; exits 0 and prints "ok" when all went well. */
public final class DriverTest {
  private static String url;

  private interface Work {
    void run() throws Exception;
  }

  private static Connection connect(String extra) throws SQLException {
    // The driver prepares by name from the second execution on.
    return DriverManager.getConnection(url + "&prepareThreshold=2" + extra);
  }

  private static void equal(Object got, Object want) {
    if (!got.equals(want)) {
      throw new AssertionError("got " + got + ", want " + want);
    }
  }

  private static void failsWith(String state, Work work) throws Exception {
    try {
      work.run();
    } catch (SQLException refused) {
      equal(refused.getSQLState(), state);
      return;
    }
    throw new AssertionError("did not fail with " + state);
  }

  private static String value(Connection connection, String sql) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      rows.next();
      return rows.getString(1);
    }
  }

  private static void prepared(Connection connection) throws SQLException {
    for (int kind = 0; kind < 4; kind++) {
      try (PreparedStatement statement = connection.prepareStatement("SELECT ?::int + " + kind)) {
        for (int n = 0; n < 10; n++) {
          statement.setInt(1, n);
          try (ResultSet rows = statement.executeQuery()) {
            rows.next();
            equal(rows.getInt(1), n + kind);
          }
        }
      }
    }
  }

  private static void transactions(Connection connection) throws Exception {
    connection.setAutoCommit(false);
    try (Statement statement = connection.createStatement()) {
      statement.execute("CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP");
      Savepoint savepoint = connection.setSavepoint();
      failsWith("22012", () -> statement.executeQuery("SELECT 1/0"));
      connection.rollback(savepoint);
    }
    try (PreparedStatement insert = connection.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
      for (int n = 0; n < 500; n++) {
        insert.setInt(1, n);
        insert.setString(2, "x".repeat(n % 50));
        insert.addBatch();
      }
      equal(insert.executeBatch().length, 500);
    }
    equal(value(connection, "SELECT sum(n) FROM t"), "124750");
    try (PreparedStatement cursor = connection.prepareStatement("SELECT n FROM t ORDER BY n")) {
      cursor.setFetchSize(7);
      int next = 0;
      try (ResultSet rows = cursor.executeQuery()) {
        while (rows.next()) {
          equal(rows.getInt(1), next++);
        }
      }
      equal(next, 500);
    }
    var copy = connection.unwrap(PGConnection.class).getCopyAPI();
    equal(copy.copyIn("COPY t FROM STDIN", new StringReader("1000\ta\n1001\tb\n")), 2L);
    StringWriter out = new StringWriter();
    copy.copyOut("COPY (SELECT n FROM t WHERE n >= 1000 ORDER BY n) TO STDOUT", out);
    equal(out.toString(), "1000\n1001\n");
    connection.commit();
    connection.setAutoCommit(true);
  }

  private static void errors(Connection connection) throws Exception {
    try (PreparedStatement broken = connection.prepareStatement("SELEC ?")) {
      broken.setInt(1, 1);
      for (int n = 0; n < 4; n++) {
        failsWith("42601", broken::executeQuery);
      }
    }
    failsWith("42P01", () -> value(connection, "SELECT * FROM no_such_table"));
    try (Statement statement = connection.createStatement()) {
      statement.execute("DO $$ BEGIN RAISE NOTICE 'look'; END $$");
      equal(statement.getWarnings().getMessage(), "look");
    }
  }

  private static void cancel(Connection connection) throws Exception {
    Timer timer = new Timer(true);
    try (Statement statement = connection.createStatement()) {
      timer.schedule(new TimerTask() {
        @Override
        public void run() {
          try {
            statement.cancel();
          } catch (SQLException failure) {
            throw new AssertionError(failure);
          }
        }
      }, 300);
      failsWith("57014", () -> statement.executeQuery("SELECT pg_sleep(30)"));
    }
    equal(value(connection, "SELECT 1"), "1");
  }

  private static Void parameters(String name) throws SQLException {
    try (Connection connection = connect("&assumeMinServerVersion=9.0&ApplicationName=" + name
        + "&options=-c%20search_path=" + name + "%20-c%20extra_float_digits=3")) {
      for (int n = 0; n < 10; n++) {
        equal(value(connection, "SHOW application_name"), name);
        equal(value(connection, "SHOW search_path"), name);
        equal(value(connection, "SHOW extra_float_digits"), "3");
      }
    }
    return null;
  }

  private static Void tokens(int number) throws SQLException {
    try (Connection connection = connect("");
        PreparedStatement statement = connection.prepareStatement("SELECT ?::text FROM pg_sleep(0.001)")) {
      for (int turn = 0; turn < 25; turn++) {
        String token = number + "/" + turn;
        statement.setString(1, token);
        try (ResultSet rows = statement.executeQuery()) {
          rows.next();
          equal(rows.getString(1), token);
        }
      }
    }
    return null;
  }

  private static void concurrent() throws Exception {
    List<Callable<Void>> tasks = new ArrayList<>();
    for (int n = 0; n < 20; n++) {
      int number = n;
      tasks.add(() -> tokens(number));
      tasks.add(() -> parameters("name" + number % 3));
    }
    ExecutorService threads = Executors.newFixedThreadPool(20);
    try {
      for (Future<Void> done : threads.invokeAll(tasks)) {
        done.get();
      }
    } finally {
      threads.shutdownNow();
    }
  }

  public static void main(String[] arguments) throws Exception {
    url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/app?user=postgres&sslmode=disable";
    try (Connection connection = connect("")) {
      prepared(connection);
      transactions(connection);
      errors(connection);
      cancel(connection);
    }
    concurrent();
    System.out.println("ok");
  }
}
