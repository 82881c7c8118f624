import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public class Jdbc {
    static void check(boolean holds, String what) {
        if (!holds) throw new IllegalStateException(what);
    }

    static Connection connect() throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", System.getenv("PGSSLROOTCERT"));
        String url = "jdbc:postgresql://localhost:" + System.getenv("PGPORT") + "/orders";
        return DriverManager.getConnection(url, properties);
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            ResultSet one = statement.executeQuery("select 1");
            check(one.next() && one.getInt(1) == 1, "a query");
            try (PreparedStatement sum = connection.prepareStatement("select ?::int + ?::int")) {
                // From the fifth on the driver keeps a named statement at the server.
                for (int n = 0; n < 8; n++) {
                    sum.setInt(1, n);
                    sum.setInt(2, 40);
                    ResultSet found = sum.executeQuery();
                    check(found.next() && found.getInt(1) == 40 + n, "a parameter");
                }
            }
            connection.setAutoCommit(false);
            statement.execute("create table jdbc_rows (id int, name text)");
            try (PreparedStatement insert = connection.prepareStatement("insert into jdbc_rows values (?, ?)")) {
                for (int n = 0; n < 50; n++) {
                    insert.setInt(1, n);
                    insert.setString(2, "row " + n);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            connection.commit();
            statement.execute("delete from jdbc_rows");
            connection.rollback();
            // A cursor at the server, row by row.
            statement.setFetchSize(7);
            ResultSet rows = statement.executeQuery("select id from jdbc_rows order by id");
            int count = 0;
            while (rows.next()) check(rows.getInt(1) == count++, "the order");
            check(count == 50, "all rows");
            connection.commit();
            connection.setAutoCommit(true);
            try {
                statement.execute("select 1 / 0");
            } catch (SQLException error) {
                check(error.getSQLState().equals("22012"), "the server's own error");
            }
            String version = connection.getMetaData().getDriverVersion();
            check(connection.getMetaData().getTables(null, null, "jdbc_rows", null).next(), "metadata");
            System.out.println("READY " + version + " java " + System.getProperty("java.version"));
            try {
                statement.execute("select pg_sleep(30)");
            } catch (SQLException error) {
                System.out.println("CUT " + error.getSQLState() + " " + error.getMessage().replace('\n', ' '));
            }
        }
        try {
            connect().close();
        } catch (SQLException error) {
            System.out.println("REFUSED " + error.getSQLState() + " " + error.getMessage().replace('\n', ' '));
        }
    }
}
