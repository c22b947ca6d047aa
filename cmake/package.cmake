# The Debian package: `cmake --build --preset release --target package`. Its configuration is conf/pgweir.ini with the
# places of a Debian system filled in.
file(READ ${CMAKE_SOURCE_DIR}/conf/pgweir.ini debian_ini)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/conf/pgweir.ini)
# FROM must be there: a changed example must not silently make a wrong package.
macro(pgweir_debian_ini from to)
  string(FIND "${debian_ini}" "${from}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "conf/pgweir.ini does not contain '${from}'")
  endif()
  string(REPLACE "${from}" "${to}" debian_ini "${debian_ini}")
endmacro()
pgweir_debian_ini("auth_file = conf/" "auth_file = /etc/pgweir/")
pgweir_debian_ini("unix_socket_dir = /tmp" "unix_socket_dir = /var/run/postgresql")
pgweir_debian_ini("cert_file = conf/" "cert_file = /etc/pgweir/")
pgweir_debian_ini("key_file = conf/" "key_file = /etc/pgweir/")
string(REGEX REPLACE "\n.(logfile|pidfile) = /" "\n\\1 = /" debian_ini "${debian_ini}")  # no longer comments
pgweir_debian_ini("conf/pgweir.ini" "/etc/pgweir/pgweir.ini")
file(WRITE ${CMAKE_BINARY_DIR}/generated/debian/pgweir.ini "${debian_ini}")

install(FILES ${CMAKE_BINARY_DIR}/generated/debian/pgweir.ini DESTINATION /etc/pgweir COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES conf/userlist.txt DESTINATION /etc/pgweir COMPONENT debian EXCLUDE_FROM_ALL
        PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ)
install(FILES conf/debian/pgweir.service DESTINATION /lib/systemd/system COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES conf/debian/pgweir.logrotate DESTINATION /etc/logrotate.d RENAME pgweir COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES conf/debian/pgweir.tmpfiles DESTINATION /usr/lib/tmpfiles.d RENAME pgweir.conf COMPONENT debian
        EXCLUDE_FROM_ALL)
install(FILES LICENSE DESTINATION /usr/share/doc/pgweir RENAME copyright COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES README.md docs/compatibility.md docs/migrate-from-pgbouncer.md docs/routing.md
        DESTINATION /usr/share/doc/pgweir COMPONENT debian EXCLUDE_FROM_ALL)
install(FILES conf/postgresql/primary.conf conf/postgresql/standby.conf
        DESTINATION /usr/share/doc/pgweir/examples/postgresql COMPONENT debian EXCLUDE_FROM_ALL)

# Manual page and changelog are compressed, without name and time, so that equal sources make equal packages.
find_program(PGWEIR_GZIP gzip)
function(pgweir_install_compressed source destination)
  get_filename_component(name ${source} NAME)
  set(compressed ${CMAKE_BINARY_DIR}/generated/debian/${name}.gz)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  execute_process(COMMAND ${PGWEIR_GZIP} -9nc ${source} OUTPUT_FILE ${compressed} COMMAND_ERROR_IS_FATAL ANY)
  install(FILES ${compressed} DESTINATION ${destination} COMPONENT debian EXCLUDE_FROM_ALL)
endfunction()
if(PGWEIR_GZIP)
  configure_file(conf/debian/changelog.in ${CMAKE_BINARY_DIR}/generated/debian/changelog @ONLY)
  pgweir_install_compressed(${CMAKE_BINARY_DIR}/generated/debian/changelog /usr/share/doc/pgweir)
  pgweir_install_compressed(${CMAKE_SOURCE_DIR}/conf/debian/pgweir.1 /usr/share/man/man1)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME pgweir)
set(CPACK_PACKAGE_CONTACT "pgweir developers <pgweir@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "connection pooler for PostgreSQL, a drop-in replacement for PgBouncer")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
# The program without its uncompressed manual page, which is for installations from the sources.
set(CPACK_COMPONENTS_ALL program debian)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Lets many clients share few connections to PostgreSQL, on all cores of the\nmachine. It takes PgBouncer's configuration file, has its console and speaks\nto clients and to monitoring as PgBouncer does.")
set(CPACK_DEBIAN_PACKAGE_DEPENDS "adduser")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "postgresql-client, logrotate")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "postgresql")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
    "${CMAKE_SOURCE_DIR}/conf/debian/postinst;${CMAKE_SOURCE_DIR}/conf/debian/prerm;${CMAKE_SOURCE_DIR}/conf/debian/postrm;${CMAKE_SOURCE_DIR}/conf/debian/conffiles")
include(CPack)
