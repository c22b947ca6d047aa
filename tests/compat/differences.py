"""The differences that may be, each with the reason why. One that does not occur any more fails the suite.

A reason names the version of PgBouncer after 1.18 that behaves as pgweir does, or the section of docs/compatibility.md
that tells of the deviation; test_table.py checks that there is such a section.
"""

import re

from difference import ANY, Difference, each

INT, TEXT, NUMERIC = 23, 25, 1700


def columns(what, reason, adds, lacks=()):
    return Difference(
        f"test_show_columns[{what}]",
        "columns",
        reason,
        adds=tuple([*one] for one in adds),
        lacks=tuple([*one] for one in lacks),
    )


NEW_STATISTICS = "server_assignment_count client_parse_count server_parse_count bind_count client_login_count".split()
NEW_SOCKET_COLUMNS = (("replication", TEXT), ("prepared_statements", INT), ("id", INT))
SOCKET_REASON = "1.23: replication; 1.21 prepared_statements; 1.24 id"
STATISTICS_REASON = "1.23: server_assignment_count; 1.24 the counts of Parse and Bind; 1.25 that of logins"


# -- the console: columns -----------------------------------------------------------------------------------

CONSOLE_COLUMNS = [
    columns(
        "DATABASES",
        "1.23: current_client_connections; 1.24 load_balance_hosts, max_client_connections, server_lifetime; "
        "reserve_pool was renamed",
        (
            ("reserve_pool_size", INT),
            ("server_lifetime", INT),
            ("load_balance_hosts", TEXT),
            ("max_client_connections", INT),
            ("current_client_connections", INT),
        ),
        (("reserve_pool", INT),),
    ),
    columns(
        "POOLS",
        "1.24: load_balance_hosts; Console: the hosts of SHOW POOLS",
        (("load_balance_hosts", TEXT), ("host", TEXT), ("port", INT), ("role", TEXT)),
    ),
    columns(
        "USERS",
        "1.24: sizes, limits and connections of users",
        (
            ("pool_size", TEXT),
            ("reserve_pool_size", TEXT),
            ("max_user_connections", INT),
            ("current_connections", INT),
            ("max_user_client_connections", INT),
            ("current_client_connections", INT),
        ),
    ),
    *(columns(what, SOCKET_REASON, NEW_SOCKET_COLUMNS) for what in ("CLIENTS", "SOCKETS", "ACTIVE_SOCKETS")),
    columns(
        "SERVERS",
        f"{SOCKET_REASON}; Console: the host and the role of SHOW SERVERS",
        (*NEW_SOCKET_COLUMNS, ("host", TEXT), ("role", TEXT)),
    ),
    columns(
        "STATS",
        STATISTICS_REASON,
        [(f"{kind}_{name}", NUMERIC) for kind in ("total", "avg") for name in NEW_STATISTICS],
    ),
    columns("STATS_TOTALS", STATISTICS_REASON, [(name, NUMERIC) for name in NEW_STATISTICS]),
    columns(
        "STATS_AVERAGES",
        STATISTICS_REASON,
        [(name if name.startswith("server_a") else f"avg_{name}", NUMERIC) for name in NEW_STATISTICS],
    ),
    *(
        Difference(f"test_show_columns[{what}]", "*", reason, ANY)
        for what, reason in {
            "STATE": "1.21: SHOW STATE",
            "PEERS": "1.19: SHOW PEERS",
            "PEER_POOLS": "1.19: SHOW PEER_POOLS",
            "LATENCY": "Console: SHOW LATENCY is added",
        }.items()
    ),
]

# -- the console: rows and commands -------------------------------------------------------------------------


REFUSED = ["E S=ERROR C=08P01 M=SET failed", "Z 'I'"]
NO_KILL_OF_ALL = "1.23: KILL without a name is KILL of every database"
EXTENDED = "Console: extended query protocol works"
LONG = "Console: long commands"
NEWER_SETTINGS = tuple("""auth_dbname auth_ident_file auth_ldap_options cancel_wait_timeout client_tls13_ciphers
login_notify_message max_db_client_connections max_prepared_statements max_user_client_connections peer_id
pool_idle_timeout query_wait_notify scram_iterations server_tls13_ciphers track_extra_parameters transaction_timeout
worker_threads role_check_interval role_check_timeout role_check_user max_replica_lag_bytes max_replica_lag_ms
read_your_writes failover_wait_timeout retry_reads patroni_urls http_listen native_sqlstate max_pool_logins""".split())

CONSOLE = [
    *each("Console: SHOW HELP names what there is", ANY, "test_show_help | answer"),
    *each("1.21: SHOW STATE", [["active", "yes"], ["paused", "no"], ["suspended", "no"]], "test_show_state | rows"),
    *each("1.21: SHOW STATE", ["C 'SHOW\\x00'", "Z 'I'"], "test_command | * SELECT state"),
    Difference(
        "test_counters",
        "names in TOTALS",
        STATISTICS_REASON,
        adds=tuple(
            f"{kind}_{'' if name.startswith(('server_a', 'client_l')) else 'ps_'}{name}"
            for kind in ("total", "avg")
            for name in NEW_STATISTICS
        ),
    ),
    Difference(
        "test_mem",
        "names",
        "1.25: more kinds of objects",
        adds=tuple(
            f"{what}_cache"
            for what in (
                "credentials", "peer", "peer_pool", "outstanding_request", "var_list", "server_prepared_statement"
            )
        ),
    ),
    Difference("test_lists", "order", "1.19: peers", adds=("peers", "peer_pools")),
    *each("1.21: a client without a server is idle", "idle", "test_clients_and_servers | CLIENTS 1 C empty state"),
    *each(
        "1.25: each of the two commands names itself",
        ["E S=ERROR C=08P01 M=cannot enable admin db: pgbouncer", "Z 'I'"],
        "test_command | * ENABLE pgbouncer",
    ),
    *each(
        "1.24: KILL_CLIENT",
        ["E S=ERROR C=08P01 M=invalid client pointer supplied", "Z 'I'"],
        "test_command | * KILL_CLIENT*",
    ),
    *each(
        "1.24: KILL_CLIENT",
        ["E S=ERROR C=08P01 M=admin access needed", "Z 'I'"],
        "test_command_as_stats_user | KILL_CLIENT 1",
    ),
    *each(
        "1.23: SHUTDOWN WAIT_FOR_CLIENTS",
        ["E S=ERROR C=08P01 M=admin access needed", "Z 'I'"],
        "test_command_as_stats_user | SHUTDOWN WAIT_FOR_CLIENTS",
    ),
    *each("Files: a negative size is refused", REFUSED, "test_command | * SET default_pool_size = '-1'"),
    *each(
        "Files: booleans may be words",
        ["C 'SET application_name_add_host=yes\\x00'", "Z 'I'"],
        "test_command | * SET application_name_add_host = yes",
    ),
    *each(
        "1.25: a RELOAD that failed is told",
        ["E S=ERROR C=F0000 M=RELOAD failed, see logs for additional details", "Z 'I'"],
        "test_command | 90 RELOAD",
    ),
    *each(
        "Console: SET is refused where the setting cannot take effect",
        REFUSED,
        "test_command | * SET server_tls_protocols = bad",
        "test_command | * SET client_tls_sslmode = require",
        "test_command | * SET client_tls_protocols = legacy",
        "test_command | * SET client_tls_dheparams = bad",
    ),
    *each(
        NO_KILL_OF_ALL, ["C 'KILL\\x00'", "Z 'I'"], "test_pause_and_resume | 17 KILL", "test_pause_and_resume | 18 KILL"
    ),
    *each(
        NO_KILL_OF_ALL,
        ["C 'RESUME\\x00'", "Z 'I'"],
        "test_pause_and_resume | 20 RESUME app",
        "test_pause_and_resume | 21 RESUME other",
    ),
    *each(
        LONG,
        re.compile("SET server_check_query=x"),
        "test_lengths[254] | SET server_check_que",
        "test_lengths[255] | SET server_check_que",
    ),
    *each(
        LONG,
        re.compile(r"invalid command 'SHOW  .*\.\.\.', use SHOW HELP"),
        "test_lengths[600] | SHOW                ",
        "test_lengths[5000] | SHOW                ",
    ),
    *each(LONG, ["E S=ERROR C=08P01 M=bad arguments", "Z 'I'"], "test_lengths[5000] | *x", "test_lengths[5000] | SET*"),
    *each(
        EXTENDED,
        ANY,
        *(
            f"test_messages_that_are_not_queries[{name}] | answer"
            for name in ("parse", "bind", "sync", "flush", "describe", "execute", "close")
        ),
    ),
    *each(
        "1.25: whether the console is allowed is asked before the user's secret",
        ["E S=FATAL C=08P01 M=not allowed", "end of connection ''"],
        "test_who_may_log_in[nobody] | over TCP",
        "test_who_may_log_in[nobody] | over the Unix socket",
    ),
    *each(
        "1.20: the order of tracked parameters",
        re.compile("'S .DateStyle.*'S .client_encoding|DateStyle"),
        "test_welcome_with_parameters | welcome",
    ),
    *each(
        "1.23: the line of a login tells of replication", re.compile("replication=no"), "test_log_of_a_console | lines"
    ),
]

# -- the configuration --------------------------------------------------------------------------------------

NUMBERS = "Files: a number that is out of range or is none is refused"
CONFIG = [
    Difference(
        "test_file[*]",
        "errors",
        "Files: all problems at once, with file and line and what would be right",
        re.compile(r"ERROR \S+:\d+: "),
    ),
    *each(
        "1.23: a key may be quoted",
        None,
        "test_file[key in single quotes] | exit code",
        "test_file[database name quoted] | exit code",
        "test_file[users quoted] | exit code",
    ),
    *each("Files: booleans may be words", None, "test_file[boolean yes] | exit code"),
    *each("Files: booleans are shown as 0 and 1", "1", "test_file[boolean 2] | log_connections"),
    *each(
        NUMBERS,
        1,
        "test_file[negative] | exit code",
        "test_file[too large] | exit code",
        "test_file[time in hexadecimal] | exit code",
        "test_file[database port large] | exit code",
        "test_file[database port negative] | exit code",
        "test_file[database pool_size text] | exit code",
        "test_file[database max_db_connections negative] | exit code",
        "test_file[users number text] | exit code",
    ),
    *each(
        "1.24: a forced user is a user",
        ANY,
        "test_file[database with quotes] | users",
        "test_file[database with blanks around =] | users",
    ),
    Difference(
        "test_show_config",
        "order",
        "1.25: settings that came with 1.19 to 1.25, and those of [pgweir]",
        adds=NEWER_SETTINGS,
    ),
    *each(
        "1.21: the default is what the library has",
        ["default", "default", "yes"],
        "test_show_config | client_tls_ciphers",
        "test_show_config | server_tls_ciphers",
        "test_large_file_is_shown_alike | setting client_tls_ciphers",
        "test_large_file_is_shown_alike | setting server_tls_ciphers",
    ),
    *each(
        "1.25: an empty query is enough",
        ["<empty>", "<empty>", "yes"],
        "test_show_config | server_check_query",
        "test_large_file_is_shown_alike | setting server_check_query",
    ),
    *each(
        "1.21: TLS is tried",
        ["disable", "prefer", "yes"],
        "test_show_config | server_tls_sslmode",
        "test_large_file_is_shown_alike | setting server_tls_sslmode",
    ),
    Difference(
        "test_large_file_is_shown_alike",
        "users",
        "1.24: a forced user is a user",
        adds=(["alice", None], ["bob", None]),
    ),
    *each(NUMBERS, [[], ["SET failed"]], "test_set_of_each_key | * = '-1'", "test_set_of_each_key | * = '99999999999'"),
    *each("Files: booleans may be words", re.compile("SET .*=yes"), "test_set_of_each_key | * = 'yes'"),
    *each(
        "Files: an error in auth_file is told with its line",
        re.compile("HOME/userlist.txt:[23]: expected"),
        "test_userlist[*] | log",
    ),
    *each(
        "Files: a line of auth_file is one user",
        ["admin", "pgbouncer"],
        "test_userlist[one field] | users",
        "test_userlist[no blank between] | users",
        "test_userlist[open quote] | users",
    ),
    *each(
        "Files: a line of auth_file is one user",
        re.compile('"trust" authentication failed'),
        "test_userlist[one field] | login",
        "test_userlist[open quote] | login",
    ),
]

RELOADS = [
    *each("Keys in `[databases]`: a reload may take user away", [["bob"]], "test_reload_removes_a_forced_user | after"),
    *each(
        "Keys in `[databases]`: a reload may take user away",
        re.compile("database configuration changed"),
        "test_reload_removes_a_forced_user | log",
    ),
    *each(
        "Keys in `[databases]`: without * its databases are gone",
        re.compile("database removed"),
        "test_auto_databases | client after the removal",
    ),
    *each(
        "Keys in `[databases]`: without * its databases are gone",
        re.compile("no such database: (any|some)thing"),
        "test_auto_databases | the same name after the removal",
        "test_auto_databases | a new name after the removal",
    ),
    *each(
        "Keys in `[databases]`: without * its databases are gone",
        ["app", "pgbouncer"],
        "test_auto_databases | listed after the removal",
    ),
    *each(
        "Log: the prefix names database and user at once",
        re.compile("app/whoever@"),
        "test_auth_type_any_without_forced_user | log",
    ),
    *each(
        "1.25: a RELOAD that failed is told",
        ["E S=ERROR C=F0000 M=RELOAD failed, see logs for additional details", "Z 'I'"],
        "test_reload_with_a_mistake | RELOAD",
    ),
    *each("Log: the end is told", ["LOG SHUTDOWN command issued", "LOG shutting down"], "test_shutdown[*] | log"),
]

# -- authentication -----------------------------------------------------------------------------------------

FAKE = "Authentication: a login by SCRAM fails at its end only"
REFUSED_BY_SCRAM = re.compile(r"R 11 <random>', 'E S=FATAL C=08P01 M=SASL authentication failed', .end of")
SERVER_CODE = "1.21: errors of the server keep their SQLSTATE"
NO_RULE = "1.23: no rule of auth_hba_file matches"
AUTHENTICATION = [
    *each(
        FAKE,
        REFUSED_BY_SCRAM,
        "test_methods[md51-scram-sha-256-*] | login",
        "test_auth_query[md5 secret-scram-sha-256] | *",
        "test_hba[scram] | md51 correct horse",
        "test_large_file_lets_the_same_people_in | u001 with correct horse to db017",
    ),
    *each("1.21: nobody logs in with an empty secret", REFUSED_BY_SCRAM, "test_methods[none1-scram-sha-256-] | login"),
    *each(
        "Log: the prefix names database and user at once",
        re.compile("app/unknown1@"),
        "test_log_of_a_failed_login[*] | log of unknown1",
    ),
    *each(
        "1.25: whether the console is allowed is asked before the user's secret",
        ["E S=FATAL C=08P01 M=not allowed", "end of connection ''"],
        "test_trap_03_unknown_database_is_told_after_the_login[unknown1-correct horse-pgbouncer] | login",
    ),
    *each(
        SERVER_CODE,
        re.compile("C=28P01 M=password authentication failed"),
        "test_login_at_the_server[wrong] | * client",
    ),
    *each(
        SERVER_CODE,
        re.compile("C=28000 M=role"),
        "test_login_at_the_server[unknown role] | * client",
        "test_login_at_the_server[role without login] | * client",
        "test_auth_query[two rows-*] | *",
        "test_auth_query[md5 secret-*] | *",
    ),
    *each(SERVER_CODE, re.compile("C=3D000 M=database"), "test_login_at_the_server[unknown database] | * client"),
    *each(
        "Log: a failed login at the server", re.compile("server login failed: "), "test_login_at_the_server[*] | log"
    ),
    *each(
        "Authentication: auth_query that finds no secret",
        re.compile('"trust" authentication failed'),
        "test_auth_query[null secret-trust] | *",
        "test_auth_query[empty secret-trust] | *",
    ),
    *each(
        NO_RULE, ["E S=FATAL C=08P01 M=no authentication method is found", "end of connection ''"], "test_hba[*] | *"
    ),
    *each("1.21: all as an address", ANY, "test_hba[address all] | *"),
    *each(
        "Authentication: lines of auth_hba_file that cannot be read",
        re.compile("ERROR HOME/hba:1: "),
        "test_hba[*] | log",
    ),
    *each("1.23: replication as a database", [], "test_hba[replication] | log"),
    *each(
        "Authentication: a password message that is broken",
        re.compile("empty password returned|SASL authentication failed|invalid SASL"),
        "test_wrong_messages_during_authentication[*-empty] | answer",
        "test_wrong_messages_during_authentication[*-no terminator] | answer",
        "test_wrong_sasl[wrong length] | answer",
    ),
    *each(
        "Log: one line fewer for SCRAM",
        re.compile("SASL authentication failed"),
        "test_log_of_a_failed_login[scram-sha-256] | log of plain1",
    ),
]

# -- the protocol -------------------------------------------------------------------------------------------

HEADER = re.compile("M=bad packet header: ")
LAYOUT = ["E S=FATAL C=08P01 M=invalid startup packet layout: expected terminator as last byte", "end"]
PARAMETERS = "Protocol and pooling: any start-up parameter is honoured"
PROTOCOL = [
    *each(
        "1.21: the layout of the startup packet is checked",
        LAYOUT,
        *(
            f"test_first_packet[{name}] | answer"
            for name in ("length 8", "no terminator", "text behind", "key without value", "empty key")
        ),
    ),
    *each(
        "Protocol and pooling: a first packet that is none",
        HEADER,
        *(
            f"test_first_packet[{name}] | answer"
            for name in ("second byte", "http", "tls hello", "ssl with data", "gss with data")
        ),
    ),
    *each(
        "1.21: names are not cut",
        re.compile("no such database: d{64,}"),
        "test_first_packet[too long database] | answer",
        "test_first_packet[very long database] | answer",
    ),
    *each(PARAMETERS, re.compile("C=42704"), "test_unknown_parameters | one", "test_unknown_parameters | two"),
    *each(PARAMETERS, ["C 'SET\\x00'", "Z 'I'"], "test_tracked_parameters[*] | a SET"),
    *each(PARAMETERS, re.compile("LATIN1|DMY|SQL|Paris|off|s; "), "test_tracked_parameters[*] | then"),
    *each("1.23: replication connections", ["end"], "test_first_packet[replication false] | answer"),
    *each(
        "1.20: options as a startup parameter",
        re.compile("M=unsupported (options )?startup parameter"),
        "test_first_packet[options unknown] | answer",
        "test_first_packet[options with long value] | answer",
    ),
    *each(PARAMETERS, re.compile("'Z 'I'|C=42704|\"Z 'I'"), "test_ignored_parameters | *"),
    *each(
        "1.21: statements are tracked, and what names them is read",
        re.compile("M=broken (Bind|Close) packet|end of connection"),
        "test_message[broken bind-transaction] | *",
        "test_message[broken close-transaction] | *",
    ),
    *each(
        "Protocol and pooling: a request that waits is canceled too",
        re.compile("C=57014"),
        "test_cancel_of_a_waiting_client | the one that waited",
    ),
    *each(
        "Protocol and pooling: what a server had answered is passed on",
        re.compile("C 'BEGIN.*M=transaction blocks not allowed"),
        "test_statement_mode | begin",
        "test_statement_mode | begin in a pipeline",
    ),
]

# -- the process --------------------------------------------------------------------------------------------

REPLICATION = "1.23: the line of a login tells of replication"
NO_UNIX_SOCKET = "1.21: a Unix socket that cannot be had is fatal"
PROCESS = [
    *each(
        "Process: -V names what this program is made of",
        ["PgWeir N", "epoll", "adns: c-ares N", "tls: OpenSSL N"],
        "test_command_line[-V] | shape",
        "test_command_line[--version] | shape",
    ),
    *(
        Difference(
            f"test_command_line[{option}]",
            "options",
            "Process: --check is added",
            adds=("--check",),
        )
        for option in ("-h", "--help")
    ),
    *each(
        "Process: -q does not hide why there is no start",
        True,
        "test_command_line[-q no/such/file.ini] | says something on stderr",
        "test_command_line[-qv no/such] | says something on stderr",
    ),
    *each(
        "Process: -q does not hide why there is no start",
        re.compile("FATAL could not open log file"),
        "test_trouble_at_the_start[logfile in no folder] | log",
    ),
    *each(NO_UNIX_SOCKET, 1, "test_trouble_at_the_start[socket folder missing] | exit code"),
    *each(
        "1.21: without any of the addresses there is no start",
        1,
        "test_trouble_at_the_start[listen_addr nobody has] | exit code",
        "test_trouble_at_the_start[port in use] | exit code",
    ),
    *each(
        "1.20: the pidfile is named",
        ["FATAL pidfile 'HOME/pid' exists, another instance running?"],
        "test_trouble_at_the_start[pidfile of a living process] | log",
        "test_trouble_at_the_start[pidfile with garbage] | log",
    ),
    *each(
        "Process: a pidfile without a number",
        ["FATAL pidfile 'HOME/pid' exists, another instance running?"],
        "test_trouble_at_the_start[empty pidfile] | log",
    ),
    *each(
        "Process: the pidfile is looked at before the Unix socket",
        ["FATAL pidfile 'HOME/pid' exists, another instance running?"],
        "test_second_process | log",
    ),
    *each(
        "Log: lines of the start",
        re.compile(r"max expected fd use: 1100', .*process up: VERSION, 2 workers \(epoll\), tls: "),
        "test_lines_of_the_start | log",
    ),
    *each(
        "1.23: SIGTERM and SIGQUIT end it in order",
        0,
        "test_files_while_it_runs_and_after | exit code",
        "test_signal_that_ends[SIGTERM] | exit code",
        "test_signal_that_ends[SIGQUIT] | exit code",
    ),
    *each(
        "1.23: what is waited for",
        re.compile("got SIG.*waiting for all|shutting down"),
        "test_signal_that_ends[*] | log",
    ),
    *each(
        "1.25: parses, binds and logins",
        "stats: N xacts/s, N queries/s, N client parses/s, N server parses/s, N binds/s, "
        "N client logins/s, in N B/s, out N B/s, xact N us, query N us, wait N us",
        "test_stats_line | line",
    ),
    *each(
        REPLICATION,
        re.compile("replication=no"),
        "test_log_of_a_client | a client over *",
        "test_health_probe_is_not_logged | log",
    ),
    *each(
        "Log: the prefix names database and user at once",
        re.compile("nowhere/postgres@.* login failed: db=nowhere user=postgres"),
        "test_log_of_a_client | log of the unknown database",
    ),
    *each("Process: root is refused", ["FATAL PgWeir should not run as root"], "test_root[as root] | log"),
]

# -- servers ------------------------------------------------------------------------------------------------

SERVERS = [
    *each(
        "1.21: the name alone",
        ["LOG C-0xPTR: anything/postgres@127.0.0.1:PORT registered new auto-database: anything"],
        "test_auto_databases | log",
    ),
    *each(
        SERVER_CODE,
        re.compile("C=(53300|28P01|3D000) M="),
        "test_server_that_misbehaves[too many connections] | first client",
        "test_server_that_misbehaves[wrong password] | first client",
        "test_server_that_misbehaves[no database] | first client",
    ),
    *each(
        "1.21: clients wait while the server starts",
        re.compile("C 'SELECT 1"),
        "test_server_that_misbehaves[starting up] | first client",
    ),
    *each(
        "Log: what belongs to a pool",
        ["WARNING app/postgres: taking connection from reserve_pool"],
        "test_reserve_pool | log",
    ),
    *each(
        "Log: a connection that broke",
        re.compile("closing because: Connection reset by peer"),
        "test_client_leaves_in_a_transaction[vanish] | log of the client",
    ),
]

TRAPS = [
    *each(
        "1.25: a RELOAD that failed is told",
        ["E S=ERROR C=F0000 M=RELOAD failed, see logs for additional details", "Z 'I'"],
        "test_trap_01_every_error_of_the_pooler_is_08P01 | failed reload",
    ),
    *each(
        "1.25: a pool_size of 0 has no limit",
        ["C 'BEGIN\\x00'"] * 3,
        "test_trap_05_pool_size_0_is_unlimited_and_less_is_inherited | no limit",
    ),
    *each(
        "Protocol and pooling: a client is told the server's spelling",
        "UTF8",
        "test_trap_08_hidden_settings_do_not_reach_the_client | spelling at the login",
    ),
    *each("1.25: newer minor versions are negotiated", "v ", "test_trap_09_newer_minor_version | first answer"),
    *each(
        "1.23: replication connections",
        ["E S=FATAL C=08P01 M=no authentication method is found", "end of connection ''"],
        "test_trap_16_physical_replication_needs_its_own_rule | physical",
    ),
    *each("Console: PAUSE after WAIT_CLOSE", ["PAUSE"], "test_trap_17_pause_after_wait_close | tag"),
]

DIFFERENCES = [*TRAPS, *SERVERS, *PROCESS, *CONSOLE_COLUMNS, *CONSOLE, *CONFIG, *RELOADS, *AUTHENTICATION, *PROTOCOL]
