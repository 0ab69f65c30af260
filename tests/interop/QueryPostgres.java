// PostgreSQL's driver for Java, unchanged: connects, looks around, queries with parameters, writes batches, gets errors,
// cancels. Argument: host:port. Prints one line; ends with an error at the first answer that is not right.
//
// Run from its source: java -cp postgresql.jar QueryPostgres.java host:port

import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

public class QueryPostgres {
    static final OffsetDateTime START = OffsetDateTime.of(2026, 6, 1, 0, 0, 0, 0, ZoneOffset.UTC);
    static final String LONG =
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b WHERE a.value % 7 = b.value % 3";

    static void same(Object found, Object wanted, String what) {
        if (!Objects.equals(found, wanted)) {
            throw new IllegalStateException(what + ": found " + found + ", wanted " + wanted);
        }
    }

    /** One column of a result, all rows. */
    static List<Object> column(ResultSet rows, String name) throws SQLException {
        List<Object> values = new ArrayList<>();
        while (rows.next()) {
            values.add(rows.getObject(name));
        }
        return values;
    }

    static void refused(Statement statement, String sql, String state) throws SQLException {
        try {
            statement.execute(sql);
        } catch (SQLException error) {
            same(error.getSQLState(), state, sql);
            return;
        }
        throw new IllegalStateException("no error for " + sql);
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData about = connection.getMetaData();
        same(about.getDatabaseProductName(), "PostgreSQL", "product");
        same(about.getUserName(), "me", "user");
        same(column(about.getSchemas(), "TABLE_SCHEM").contains("public"), true, "schemas");
        same(column(about.getCatalogs(), "TABLE_CAT").contains("eden"), true, "catalogs");
        same(column(about.getTables(null, "public", "jdbc", new String[] {"TABLE"}), "TABLE_NAME"), List.of("jdbc"), "tables");
        same(column(about.getTables(null, null, "nothing%", null), "TABLE_NAME"), List.of(), "no tables");
        same(column(about.getColumns(null, "public", "jdbc", "%"), "COLUMN_NAME"),
            List.of("device", "temp", "n", "ok", "price", "time"), "columns");
        same(column(about.getColumns(null, "public", "jdbc", "%"), "DATA_TYPE"),
            List.of(Types.VARCHAR, Types.DOUBLE, Types.BIGINT, Types.BIT, Types.NUMERIC, Types.TIMESTAMP), "types");
        same(column(about.getColumns(null, "public", "jdbc", "price"), "DECIMAL_DIGITS"), List.of(2), "digits");
        same(column(about.getPrimaryKeys(null, "public", "jdbc"), "COLUMN_NAME"), List.of(), "keys");
        same(column(about.getIndexInfo(null, "public", "jdbc", false, false), "INDEX_NAME"), List.of(), "indexes");
        same(column(about.getImportedKeys(null, "public", "jdbc"), "FKTABLE_NAME"), List.of(), "keys of others");
        same(column(about.getTableTypes(), "TABLE_TYPE").contains("TABLE"), true, "kinds of tables");
        same(column(about.getTypeInfo(), "TYPE_NAME").containsAll(List.of("bool", "float8", "int8", "text", "timestamptz")), true,
            "types of the database");
        column(about.getFunctions(null, null, "%"), "FUNCTION_NAME");
        column(about.getProcedures(null, null, "%"), "PROCEDURE_NAME");
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + "/eden?user=me";
        try (Connection connection = DriverManager.getConnection(url); Statement statement = connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS jdbc");
            statement.execute("CREATE TABLE jdbc (device TEXT, temp DOUBLE, n BIGINT, ok BOOLEAN, price DECIMAL(9,2), "
                + "time TIMESTAMP, PRIMARY KEY (device, time))");
            String insert = "INSERT INTO jdbc (device, temp, n, ok, price, time) VALUES (?, ?, ?, ?, ?, ?)";
            try (PreparedStatement prepared = connection.prepareStatement(insert)) {
                for (int n = 0; n < 1000; n++) {
                    prepared.setString(1, "d" + n % 10);
                    prepared.setDouble(2, n / 2.0);
                    prepared.setLong(3, n);
                    prepared.setBoolean(4, n % 2 == 0);
                    prepared.setBigDecimal(5, java.math.BigDecimal.valueOf(n, 2));
                    prepared.setObject(6, START.plusSeconds(n));
                    prepared.addBatch();
                }
                same(Arrays.stream(prepared.executeBatch()).sum(), 1000, "batch");
            }
            String select = "SELECT device, temp, n, ok, price, time FROM jdbc WHERE device = ? AND n > ? AND time >= ? ORDER BY n";
            try (PreparedStatement prepared = connection.prepareStatement(select)) {
                // From the fifth time on the driver prepares it on the server, and takes binary values.
                for (int round = 0; round < 8; round++) {
                    prepared.setString(1, "d3");
                    prepared.setInt(2, round * 10);
                    prepared.setObject(3, START);
                    ResultSet rows = prepared.executeQuery();
                    same(rows.next(), true, "a row");
                    long n = round == 0 ? 3 : round * 10L + 3;
                    same(rows.getString(1), "d3", "text");
                    same(rows.getDouble(2), n / 2.0, "double");
                    same(rows.getLong(3), n, "whole number");
                    same(rows.getBoolean(4), false, "truth");
                    same(rows.getBigDecimal(5), java.math.BigDecimal.valueOf(n, 2), "decimal");
                    same(rows.getObject(6, OffsetDateTime.class), START.plusSeconds(n), "time");
                }
            }
            connection.setAutoCommit(false);
            try (PreparedStatement prepared = connection.prepareStatement("SELECT n FROM jdbc ORDER BY n")) {
                prepared.setFetchSize(100);
                same(column(prepared.executeQuery(), "n").size(), 1000, "rows in portions");
            }
            connection.commit();
            connection.setAutoCommit(true);
            try (ResultSet rows = statement.executeQuery("SELECT ARRAY[1, 2, 3] AS numbers, ARRAY['a', NULL] AS texts")) {
                rows.next();
                same(Arrays.asList((Object[]) rows.getArray(1).getArray()), List.of(1L, 2L, 3L), "numbers of an array");
                same(Arrays.asList((Object[]) rows.getArray(2).getArray()), Arrays.asList("a", null), "texts of an array");
            }
            metadata(connection);
            refused(statement, "SELECT * FROM nowhere", "42P01");
            refused(statement, "SELECT nothing FROM jdbc", "42703");
            refused(statement, "SELEC 1", "42601");
            same(connection.isValid(5), true, "valid");
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(500);
                    statement.cancel();
                } catch (InterruptedException | SQLException error) {
                    throw new IllegalStateException(error);
                }
            });
            canceller.start();
            refused(statement, LONG, "57014");
            canceller.join();
            statement.setQueryTimeout(1);
            refused(statement, LONG, "57014");
            statement.setQueryTimeout(0);
            same(statement.executeUpdate("DELETE FROM jdbc WHERE device = 'd9'"), 100, "rows of DELETE");
            System.out.println("pgJDBC " + connection.getMetaData().getDriverVersion());
        }
    }
}
