# Compiler settings shared by every target: language level, warnings as errors, sanitizers, ccache.
add_library(pgweir_flavour INTERFACE)
target_compile_features(pgweir_flavour INTERFACE cxx_std_20)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

target_compile_options(pgweir_flavour INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  -Woverloaded-virtual -Wimplicit-fallthrough -fno-strict-aliasing)
# Among files compiled as one, a local name may be that of a constant of another file.
target_compile_options(pgweir_flavour INTERFACE "$<$<NOT:$<BOOL:$<TARGET_PROPERTY:UNITY_BUILD>>>:-Wshadow>")
# Unit tests are most of the code to compile. They link layers built as the flavour says, but are not optimised
# themselves.
set(is_assertions "$<BOOL:$<TARGET_PROPERTY:PGWEIR_ASSERTIONS>>")
target_compile_options(pgweir_flavour INTERFACE "$<${is_assertions}:-O0>")

# The sanitizers' instrumentation makes GCC 12 see overflows and uninitialised reads that are not there.
set(PGWEIR_SANITIZE "" CACHE STRING "Sanitizers to build with, as for -fsanitize=")
if(PGWEIR_SANITIZE)
  # What is under test is instrumented in full; the assertions around it need no check for undefined behaviour.
  target_compile_options(pgweir_flavour INTERFACE -fsanitize=${PGWEIR_SANITIZE}
    "$<${is_assertions}:-fno-sanitize=undefined>" -fno-omit-frame-pointer -fno-sanitize-recover=all
    -Wno-error=maybe-uninitialized -Wno-error=stringop-overflow -Wno-error=array-bounds)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(pgweir_flavour INTERFACE -Wno-error=tsan)
  endif()
  target_link_options(pgweir_flavour INTERFACE -fsanitize=${PGWEIR_SANITIZE})
endif()

# Hardening that costs nothing measurable on the byte path.
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  target_compile_definitions(pgweir_flavour INTERFACE "$<$<NOT:${is_assertions}>:_FORTIFY_SOURCE=2>")
  target_compile_options(pgweir_flavour INTERFACE -fstack-protector-strong)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without the sloppiness it does not cache what is compiled with a precompiled header. The compiler is given paths
  # relative to the build tree, so that another checkout of the same files finds them compiled already.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content ${CCACHE_PROGRAM})
endif()
# Where the checkout lies is nobody's business who is given the program.
target_compile_options(pgweir_flavour INTERFACE -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)

# Headers are most of the compile time. The layers use this in the sanitizer flavours only: the release flavour shows
# that every file includes what it uses.
option(PGWEIR_PCH "Precompile the headers of the standard library, fmt and Boost for the layers, and unite their files" OFF)
function(pgweir_precompile target)
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <charconv> <chrono> <functional> <limits> <map> <memory> <optional> <span> <stdexcept> <string>
    <string_view> <unordered_map> <utility> <variant> <vector> <fmt/format.h>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
endfunction()

# Several files compiled as one: inlined templates are instantiated once instead of once per file.
function(pgweir_unite target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
endfunction()
