#include "router/builtin_functions.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace pgweir::router {

namespace {

using std::string_view_literals::operator""sv;

bool contains(std::span<const std::string_view> sorted, std::string_view name) {
  return std::binary_search(sorted.begin(), sorted.end(), name);
}

// Whoever asks a server for its role, or where it is, wants to know where his reads go; pgweir.route and
// transaction_read_only, by which drivers find out whether they may write, are another matter.
constexpr std::array kFine = {
    "clock_timestamp"sv, "current_query"sv,  "gen_random_uuid"sv, "pg_is_in_recovery"sv, "pg_sleep"sv,
    "pg_sleep_for"sv,    "pg_sleep_until"sv, "random"sv,          "timeofday"sv,
};

// Functions of the name pg_… that only read the catalogue, which a standby has as well, or compute.
constexpr std::array kHarmless = {
    "pg_char_to_encoding"sv,
    "pg_client_encoding"sv,
    "pg_collation_for"sv,
    "pg_column_compression"sv,
    "pg_column_is_updatable"sv,
    "pg_column_size"sv,
    "pg_describe_object"sv,
    "pg_encoding_max_length"sv,
    "pg_encoding_to_char"sv,
    "pg_get_constraintdef"sv,
    "pg_get_expr"sv,
    "pg_get_function_arg_default"sv,
    "pg_get_function_arguments"sv,
    "pg_get_function_identity_arguments"sv,
    "pg_get_function_result"sv,
    "pg_get_function_sqlbody"sv,
    "pg_get_functiondef"sv,
    "pg_get_indexdef"sv,
    "pg_get_keywords"sv,
    "pg_get_object_address"sv,
    "pg_get_partition_constraintdef"sv,
    "pg_get_partkeydef"sv,
    "pg_get_publication_tables"sv,
    "pg_get_replica_identity_index"sv,
    "pg_get_ruledef"sv,
    "pg_get_serial_sequence"sv,
    "pg_get_statisticsobjdef"sv,
    "pg_get_statisticsobjdef_columns"sv,
    "pg_get_statisticsobjdef_expressions"sv,
    "pg_get_triggerdef"sv,
    "pg_get_userbyid"sv,
    "pg_get_viewdef"sv,
    "pg_has_role"sv,
    "pg_identify_object"sv,
    "pg_identify_object_as_address"sv,
    "pg_index_column_has_property"sv,
    "pg_index_has_property"sv,
    "pg_indexam_has_property"sv,
    "pg_is_other_temp_schema"sv,
    "pg_mcv_list_items"sv,
    "pg_my_temp_schema"sv,
    "pg_options_to_table"sv,
    "pg_partition_root"sv,
    "pg_relation_is_publishable"sv,
    "pg_relation_is_updatable"sv,
    "pg_sequence_parameters"sv,
    "pg_size_bytes"sv,
    "pg_size_pretty"sv,
    "pg_timezone_abbrevs"sv,
    "pg_timezone_names"sv,
    "pg_typeof"sv,
    "pg_wal_lsn_diff"sv,
};

constexpr std::array kAsksHost = {
    "current_setting"sv,
    "inet_client_addr"sv,
    "inet_client_port"sv,
};

constexpr std::array kSession = {
    "currval"sv,
    "lastval"sv,
    "set_config"sv,
    "setseed"sv,
};

// Some run a text as a query that nobody here has seen: query_to_xml and its kin, ts_stat, ts_rewrite, dblink.
constexpr std::array kWrites = {
    "brin_desummarize_range"sv,
    "brin_summarize_new_values"sv,
    "brin_summarize_range"sv,
    "currtid2"sv,
    "gin_clean_pending_list"sv,
    "loread"sv,
    "lowrite"sv,
    "nextval"sv,
    "setval"sv,
    "ts_rewrite"sv,
    "ts_stat"sv,
};

constexpr std::array kHostSettings = {
    "all"sv,
    "config_file"sv,
    "data_directory"sv,
    "default_transaction_read_only"sv,
    "external_pid_file"sv,
    "hba_file"sv,
    "hot_standby"sv,
    "hot_standby_feedback"sv,
    "ident_file"sv,
    "in_hot_standby"sv,
    "listen_addresses"sv,
    "port"sv,
    "primary_conninfo"sv,
    "primary_slot_name"sv,
    "restore_command"sv,
    "synchronous_standby_names"sv,
    "transaction_read_only"sv,
    "unix_socket_directories"sv,
};

static_assert(std::is_sorted(kFine.begin(), kFine.end()) && std::is_sorted(kHarmless.begin(), kHarmless.end()) &&
              std::is_sorted(kAsksHost.begin(), kAsksHost.end()) && std::is_sorted(kSession.begin(), kSession.end()) &&
              std::is_sorted(kWrites.begin(), kWrites.end()) &&
              std::is_sorted(kHostSettings.begin(), kHostSettings.end()));

}  // namespace

FunctionTrait function_trait(std::string_view name) {
  if (contains(kFine, name)) return FunctionTrait::FineOnStandby;
  if (contains(kSession, name)) return FunctionTrait::Session;
  if (contains(kAsksHost, name)) return FunctionTrait::AsksHost;
  if (contains(kWrites, name)) return FunctionTrait::Writes;
  if (name.starts_with("lo_") || name.starts_with("dblink") || name.starts_with("binary_upgrade_")) {
    return FunctionTrait::Writes;
  }
  if (name.find("_to_xml") != std::string_view::npos) return FunctionTrait::Writes;
  if (name.starts_with("txid_")) return FunctionTrait::AsksHost;
  if (!name.starts_with("pg_")) return FunctionTrait::None;
  if (name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_")) return FunctionTrait::Session;
  if (name.starts_with("pg_lsn") || name.ends_with("_is_visible") || contains(kHarmless, name)) {
    return FunctionTrait::None;
  }
  if (name.starts_with("pg_logical_") || name == "pg_notify" || name.starts_with("pg_replication_")) {
    return FunctionTrait::Writes;
  }
  return FunctionTrait::AsksHost;
}

bool setting_asks_host(std::string_view name) {
  return contains(kHostSettings, name) || name.starts_with("recovery_") || name.starts_with("wal_") ||
         name.starts_with("archive_");
}

}  // namespace pgweir::router
