# SPDX-License-Identifier: Apache-2.0
# Build rules shared by every folder: compile flags, and the functions that declare a folder's library,
# program, test and header check.

set(CMAKE_C_FLAGS_DEV "-O1 -g1" CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS_DEV "-O1 -g1" CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -g1 -DNDEBUG" CACHE STRING "" FORCE)
set(CMAKE_C_FLAGS_RELEASE "-O3 -g1 -DNDEBUG" CACHE STRING "" FORCE)
set(WEFT_SANITIZE "" CACHE STRING "Sanitizers to build with, as in -fsanitize=")

add_library(weft_options INTERFACE)
target_compile_options(weft_options INTERFACE -Wall -Wextra -Werror -Wshadow=local -Wno-unused-parameter -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Clang spells GCC's -Wshadow=local as plain -Wshadow without fields.
  # libbpf's LIBBPF_OPTS names the size of its struct and leaves the rest zero, which is what it is for.
  target_compile_options(weft_options INTERFACE -Wno-unknown-warning-option -Wshadow
    -Wno-missing-designated-field-initializers)
endif()
target_include_directories(weft_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
if(WEFT_SANITIZE)
  target_compile_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(weft_options INTERFACE -fsanitize=${WEFT_SANITIZE})
endif()
find_program(LLD ld.lld-19)
if(LLD)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    add_link_options(--ld-path=${LLD})
  else()
    # GCC looks for the linker by its plain name, which Debian's package of this version does not have.
    file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/linker)
    file(CREATE_LINK ${LLD} ${PROJECT_BINARY_DIR}/linker/ld.lld SYMBOLIC)
    add_link_options(-fuse-ld=lld -B${PROJECT_BINARY_DIR}/linker)
  endif()
endif()

# What the sanitizer builds of tools/test compile: all tests labelled `sanitize`; for TSan those labelled `threads`.
add_custom_target(sanitize_tests)
add_custom_target(thread_tests)
# The headers of every folder that have no source of their own, compiled alone. The others head their source (tools/lint/text.py).
add_custom_target(header_check)

# weft_unite(TARGET)
# With sanitizers the sources of a target are compiled some at a time: nearly all of a source's time goes into the headers that it
# includes. The dev build compiles each alone, so that none leans on what another includes.
function(weft_unite target)
  if(WEFT_SANITIZE)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
  endif()
endfunction()

# weft_library(NAME SRCS... DEPS... [EXCEPTIONS])
# The library of one folder. Code in dataplane/ is built without exceptions unless EXCEPTIONS is given.
# Each header of the folder must compile alone: at the head of its own source, or as part of target `header_check`.
function(weft_library name)
  cmake_parse_arguments(A "EXCEPTIONS" "" "SRCS;DEPS" ${ARGN})
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
  if(A_SRCS)
    add_library(${name} STATIC ${A_SRCS})
    target_link_libraries(${name} PUBLIC weft_options ${A_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE weft_options ${A_DEPS})
  endif()
  file(RELATIVE_PATH rel ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  if(A_SRCS AND NOT rel MATCHES "^(bench|tools)")
    weft_unite(${name})  # No sanitizer test needs the others.
  endif()
  if(A_SRCS AND rel MATCHES "^dataplane" AND NOT A_EXCEPTIONS)
    target_compile_options(${name} PRIVATE -fno-exceptions)
    target_compile_definitions(${name} PRIVATE SPDLOG_NO_EXCEPTIONS)
  endif()
  set(check_sources)
  foreach(header ${headers})
    get_filename_component(stem ${header} NAME_WE)
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${stem}.cc)
      continue()
    endif()
    set(source ${CMAKE_CURRENT_BINARY_DIR}/header_check/${stem}.cc)
    if(NOT EXISTS ${source})
      file(WRITE ${source} "#include \"${rel}/${stem}.h\"\n#include \"${rel}/${stem}.h\"  // Its guard works.\n")
    endif()
    list(APPEND check_sources ${source})
  endforeach()
  if(check_sources)
    add_library(${name}_header_check OBJECT EXCLUDE_FROM_ALL ${check_sources})
    target_link_libraries(${name}_header_check PRIVATE ${name})
    add_dependencies(header_check ${name}_header_check)
  endif()
endfunction()

# weft_program(NAME SRCS... DEPS...): an executable, put into <build>/bin.
function(weft_program name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE weft_options ${A_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

# weft_test(NAME SRCS... DEPS... [LABELS ...] [TIMEOUT seconds] [SERIAL] [OPTIMISED])
# A GoogleTest program, one ctest entry per program. LABELS choose what the sanitizer runs of tools/test take
# (`sanitize`: ASan and UBSan; `threads`, where several run: TSan), and what needs root (`root`). SERIAL tests use both cores or
# the machine's namespaces and run alone. OPTIMISED ones compute for so long that they are made faster with sanitizers, too.
function(weft_test name)
  cmake_parse_arguments(A "SERIAL;OPTIMISED" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  target_link_libraries(${name} PRIVATE weft_options GTest::gtest GTest::gmock GTest::gtest_main ${A_DEPS})
  if(WEFT_SANITIZE AND NOT A_OPTIMISED)
    # Half of the build time of the sanitizers would be spent on making the tests themselves faster.
    target_compile_options(${name} PRIVATE -O0)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  # A program in which a test skipped shows as skipped as a whole, so that no skip looks green.
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}"
    SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\] [0-9]+ test")
  if("sanitize" IN_LIST A_LABELS)
    add_dependencies(sanitize_tests ${name})
    weft_unite(${name})
  endif()
  if("threads" IN_LIST A_LABELS)
    add_dependencies(thread_tests ${name})
  endif()
  if(A_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
