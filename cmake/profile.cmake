# What the byte path does most is known to the compiler from a recorded run (bench/profile): cmake/profile/ has for each
# source file of it how often each branch was taken. Those files are optimised by that, and once more over all of them
# when pgweir is linked. The record is a hint, never a condition: what has changed since then is compiled as if there was
# none, and so is everything by another compiler than the one whose format it has.
set(PGWEIR_PROFILE "use" CACHE STRING "Branch counts: use (in the release flavour, with GCC 12), record, or off")
set_property(CACHE PGWEIR_PROFILE PROPERTY STRINGS use record off)
set(PROFILE_DIR ${CMAKE_SOURCE_DIR}/cmake/profile)
set(PROFILED_SOURCES)
# With inlining by counts GCC 12 sees overflows that are not there.
set(PROFILE_WARNINGS -Wno-stringop-overflow -Wno-stringop-overread -Wno-array-bounds -Wno-maybe-uninitialized
                     -Wno-restrict)

if(PGWEIR_PROFILE STREQUAL "record")
  # The names of local functions have the path of their file in them as the compiler is given it, which must be as ccache
  # gives it in the release flavour.
  target_compile_options(pgweir_flavour INTERFACE -fprofile-generate -specs=${CMAKE_SOURCE_DIR}/cmake/record.specs)
  target_link_options(pgweir_flavour INTERFACE -fprofile-generate)
elseif(PGWEIR_PROFILE STREQUAL "use")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12
     AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13 AND CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    # GCC wants them under names made of where the object files go; ccache looks at the second copy.
    set(counts_dir ${CMAKE_BINARY_DIR}/branch_counts)
    string(REPLACE "/" "#" hashed_build_dir ${CMAKE_BINARY_DIR})
    file(GLOB_RECURSE records CONFIGURE_DEPENDS RELATIVE ${PROFILE_DIR} ${PROFILE_DIR}/*.gcda)
    foreach(record IN LISTS records)
      string(REGEX REPLACE "\\.gcda$" "" source ${record})
      if(EXISTS ${CMAKE_SOURCE_DIR}/${source})
        list(APPEND PROFILED_SOURCES ${source})
        string(REGEX MATCH "[a-z]+/[^/]*$" folder ${source})
        string(REGEX REPLACE "/.*" "" folder ${folder})
        set(object CMakeFiles/pgweir_${folder}.dir/${source})
        string(REPLACE "/" "#" hashed_object ${object})
        configure_file(${PROFILE_DIR}/${record} "${counts_dir}/${hashed_build_dir}#${hashed_object}.gcda" COPYONLY)
        configure_file(${PROFILE_DIR}/${record} ${counts_dir}/${object}.gcda COPYONLY)
        # GCC also remarks on functions that are new since the run. The other flavours compile the same files with
        # warnings as errors.
        set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS
          -fprofile-use=branch_counts -specs=${CMAKE_SOURCE_DIR}/cmake/partial_training.specs -flto -ffat-lto-objects
          -Wno-error -Wno-missing-profile -Wno-coverage-mismatch ${PROFILE_WARNINGS})
        set_property(SOURCE ${source} APPEND PROPERTY OBJECT_DEPENDS ${PROFILE_DIR}/${record})
      endif()
    endforeach()
    # Tests link the same objects in a fraction of the time, as they are.
    target_link_options(pgweir_flavour INTERFACE "$<$<NOT:$<BOOL:$<TARGET_PROPERTY:PGWEIR_LINK_TIME>>>:-fno-lto>")
  endif()
elseif(NOT PGWEIR_PROFILE STREQUAL "off")
  message(FATAL_ERROR "PGWEIR_PROFILE is \"${PGWEIR_PROFILE}\": use, record or off")
endif()

# `target` is optimised over its profiled files when it is linked.
function(pgweir_link_time target)
  if(PROFILED_SOURCES)
    set_target_properties(${target} PROPERTIES PGWEIR_LINK_TIME ON)
    target_link_options(${target} PRIVATE -flto=auto ${PROFILE_WARNINGS})
  endif()
endfunction()
