// The driver script for pgx: driver_test PORT; exits 0 and prints "ok" when all went well.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var base string

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(got, want any) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("got %v, want %v", got, want))
	}
}

func failsWith(err error, code string) {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != code {
		panic(fmt.Sprintf("got %v, want %s", err, code))
	}
}

func connect(ctx context.Context, extra string) *pgx.Conn {
	conn, err := pgx.Connect(ctx, base+extra)
	must(err)
	return conn
}

func value[T any](ctx context.Context, conn interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, sql string, arguments ...any) (result T) {
	must(conn.QueryRow(ctx, sql, arguments...).Scan(&result))
	return result
}

// The statement cache of pgx prepares everything under names of its own.
func prepared(ctx context.Context, conn *pgx.Conn) {
	for n := range 20 {
		equal(value[int](ctx, conn, fmt.Sprintf("SELECT $1::int + %d", n%4), n), n+n%4)
	}
	batch := &pgx.Batch{}
	for n := range 50 {
		batch.Queue("SELECT $1::int", n)
	}
	results := conn.SendBatch(ctx, batch)
	for n := range 50 {
		var got int
		must(results.QueryRow().Scan(&got))
		equal(got, n)
	}
	must(results.Close())

	failing := &pgx.Batch{}
	failing.Queue("SELECT 1")
	failing.Queue("SELECT 1/$1::int", 0)
	failing.Queue("SELECT 3")
	failsWith(conn.SendBatch(ctx, failing).Close(), "22012")
}

func transactions(ctx context.Context, conn *pgx.Conn) {
	tx, err := conn.Begin(ctx)
	must(err)
	_, err = tx.Exec(ctx, "CREATE TEMP TABLE t (n int, s text) ON COMMIT DROP")
	must(err)
	inner, err := tx.Begin(ctx)
	must(err)
	_, err = inner.Exec(ctx, "SELECT 1/$1::int", 0)
	failsWith(err, "22012")
	must(inner.Rollback(ctx))
	rows := [][]any{}
	for n := range 1000 {
		rows = append(rows, []any{n, strings.Repeat("x", n%50)})
	}
	copied, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n", "s"}, pgx.CopyFromRows(rows))
	must(err)
	equal(copied, int64(1000))
	equal(value[int](ctx, tx, "SELECT sum(n)::int FROM t"), 499500)
	var out strings.Builder
	_, err = tx.Conn().PgConn().CopyTo(ctx, &out, "COPY (SELECT n FROM t WHERE n < 3 ORDER BY n) TO STDOUT")
	must(err)
	equal(out.String(), "0\n1\n2\n")
	_, err = tx.Exec(ctx, "DECLARE c CURSOR FOR SELECT n FROM t ORDER BY n")
	must(err)
	fetched, err := tx.Query(ctx, "FETCH 4 FROM c")
	must(err)
	numbers, err := pgx.CollectRows(fetched, pgx.RowTo[int])
	must(err)
	equal(numbers, []int{0, 1, 2, 3})
	must(tx.Commit(ctx))
}

func failures(ctx context.Context, conn *pgx.Conn) {
	_, err := conn.Prepare(ctx, "broken", "SELEC 1")
	failsWith(err, "42601")
	_, err = conn.Prepare(ctx, "broken", "SELECT 7")
	must(err)
	equal(value[int](ctx, conn, "broken"), 7)
	must(conn.Deallocate(ctx, "broken"))
	_, err = conn.Exec(ctx, "SELECT * FROM no_such_table")
	failsWith(err, "42P01")
}

func parameters(ctx context.Context) {
	var group sync.WaitGroup
	for _, zone := range []string{"Europe/Prague", "Asia/Tokyo", "America/Lima"} {
		group.Go(func() {
			conn := connect(ctx, "&application_name="+zone+"&timezone="+zone)
			defer conn.Close(ctx)
			for range 10 {
				equal(value[string](ctx, conn, "SELECT current_setting('TimeZone')"), zone)
				equal(value[string](ctx, conn, "SELECT current_setting('application_name')"), zone)
			}
		})
	}
	group.Wait()
}

func cancel(ctx context.Context) {
	conn := connect(ctx, "")
	defer conn.Close(ctx)
	timer := time.AfterFunc(300*time.Millisecond, func() { must(conn.PgConn().CancelRequest(ctx)) })
	defer timer.Stop()
	_, err := conn.Exec(ctx, "SELECT pg_sleep(30)")
	failsWith(err, "57014")
	equal(value[int](ctx, conn, "SELECT 1"), 1)
}

func concurrent(ctx context.Context) {
	var group sync.WaitGroup
	for number := range 20 {
		group.Go(func() {
			conn := connect(ctx, "")
			defer conn.Close(ctx)
			for turn := range 25 {
				token := fmt.Sprintf("%d/%d", number, turn)
				equal(value[string](ctx, conn, "SELECT $1::text FROM pg_sleep(0.001)", token), token)
			}
		})
	}
	group.Wait()
}

func main() {
	base = fmt.Sprintf("postgres://postgres@127.0.0.1:%s/app?sslmode=disable", os.Args[1])
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	conn := connect(ctx, "")
	prepared(ctx, conn)
	transactions(ctx, conn)
	failures(ctx, conn)
	must(conn.Close(ctx))
	parameters(ctx)
	cancel(ctx)
	concurrent(ctx)
	fmt.Println("ok")
}
