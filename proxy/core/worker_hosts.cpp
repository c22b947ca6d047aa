// What a worker does when the hosts behind a database change their roles.
#include "proxy/core/worker_core.hpp"

namespace pgweir::core {

HostGroup& WorkerCore::host_group(const std::string& name) {
  HostGroup& group = host_groups_[name];
  group.name = name;
  return group;
}

void WorkerCore::set_host_table(const std::string& name, std::shared_ptr<const router::HostTable> table) {
  HostGroup& group = host_group(name);
  group.outstanding.resize(table->hosts.size());
  group.table = std::move(table);
}

void WorkerCore::set_catalog(const std::string& group, const std::string& dbname,
                             std::shared_ptr<const router::CatalogKnowledge> catalog) {
  auto& catalogs = host_group(group).catalogs;
  if (catalog) {
    catalogs[dbname] = std::move(catalog);
  } else {
    catalogs.erase(dbname);
  }
}

}  // namespace pgweir::core
