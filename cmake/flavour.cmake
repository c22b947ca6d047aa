# Compiler settings shared by every target: language level, warnings as errors, sanitizers, ccache.
add_library(pgweir_flavour INTERFACE)
target_compile_features(pgweir_flavour INTERFACE cxx_std_20)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

target_compile_options(pgweir_flavour INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  -Woverloaded-virtual -Wimplicit-fallthrough -fno-strict-aliasing)
# The sanitizers' instrumentation makes GCC 12 see overflows and uninitialised reads that are not there.
set(PGWEIR_SANITIZE "" CACHE STRING "Sanitizers to build with, as for -fsanitize=")
if(PGWEIR_SANITIZE)
  target_compile_options(pgweir_flavour INTERFACE -fsanitize=${PGWEIR_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -Wno-error=maybe-uninitialized -Wno-error=stringop-overflow
    -Wno-error=array-bounds)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(pgweir_flavour INTERFACE -Wno-error=tsan)
  endif()
  target_link_options(pgweir_flavour INTERFACE -fsanitize=${PGWEIR_SANITIZE})
endif()

# Hardening that costs nothing measurable on the byte path.
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_definitions(pgweir_flavour INTERFACE _FORTIFY_SOURCE=2)
  target_compile_options(pgweir_flavour INTERFACE -fstack-protector-strong)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()
