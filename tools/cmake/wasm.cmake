# SPDX-License-Identifier: Apache-2.0
# Builds guests: C and C++ by Debian's clang 19, lld 19 and wasi-libc, Go by `-buildmode=c-shared` (Go 1.24 or
# newer). Each guest is one target whose file is <build>/guests/<name>.wasm.

find_program(WEFT_WASM_CLANG clang-19)
find_program(WEFT_WASM_CLANGXX clang++-19)
find_program(WEFT_WASM_LD wasm-ld-19)
find_program(WEFT_GO go)
set(WEFT_GUEST_DIR ${PROJECT_BINARY_DIR}/guests)
file(MAKE_DIRECTORY ${WEFT_GUEST_DIR})

# A reactor: no main, `_initialize` runs constructors once for each instance. The stack lies below the data, so
# that an overflow traps instead of overwriting globals. 32 KiB of it keep a small guest within the 64 KiB of
# memory that the host leaves resident when it resets an instance.
set(WEFT_WASM_FLAGS --target=wasm32-wasi -O2 -Wall -Wextra -Werror -mbulk-memory -msign-ext
    -mnontrapping-fptoint -I${PROJECT_SOURCE_DIR})
set(WEFT_WASM_LINK_FLAGS --target=wasm32-wasi -mexec-model=reactor -fuse-ld=${WEFT_WASM_LD}
    -Wl,--stack-first -Wl,-z,stack-size=32768 -Wl,--strip-all)

# weft_guest(NAME SRCS... [FLAGS...] [DEPENDS...] [COMMAND]): a guest from C (all sources end in .c) or C++; with COMMAND
# one that has a main and is run once.
# A source that includes further files of ours is rebuilt with them: the compiler writes a dependency file.
function(weft_guest name)
  cmake_parse_arguments(A "COMMAND" "" "SRCS;FLAGS;DEPENDS" ${ARGN})
  if(NOT WEFT_WASM_CLANG OR NOT WEFT_WASM_LD)
    message(FATAL_ERROR "guests need clang-19, lld-19, wasi-libc and libclang-rt-19-dev-wasm32")
  endif()
  set(compiler ${WEFT_WASM_CLANG})
  set(language_flags -std=gnu11)
  set(link_flags)
  if(A_COMMAND)
    list(APPEND link_flags -mexec-model=command)
  endif()
  foreach(source ${A_SRCS})
    if(source MATCHES "\\.(cc|cpp)$")
      set(compiler ${WEFT_WASM_CLANGXX})
      set(language_flags -std=c++20 -fno-exceptions -fno-rtti)
      list(APPEND link_flags -nostdlib++)
    endif()
  endforeach()
  set(objects)
  set(commands)
  foreach(source ${A_SRCS})
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} OUTPUT_VARIABLE path)
    cmake_path(GET path FILENAME file)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.${file}.wasm.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${compiler} ${WEFT_WASM_FLAGS} ${language_flags} ${A_FLAGS}
              -MD -MF ${object}.d -MT ${object} -c ${path} -o ${object}
      DEPENDS ${path} DEPFILE ${object}.d VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(output ${WEFT_GUEST_DIR}/${name}.wasm)
  add_custom_command(OUTPUT ${output}
    COMMAND ${compiler} ${WEFT_WASM_LINK_FLAGS} ${link_flags} ${objects} -o ${output}
    DEPENDS ${objects} ${A_DEPENDS} VERBATIM COMMENT "Guest ${name}.wasm")
  add_custom_target(${name}_guest ALL DEPENDS ${output})
endfunction()

# weft_guest_go(NAME DIR): a guest from the Go package in DIR. Not built where there is no Go >= 1.24; the tests
# that need it then skip by name.
function(weft_guest_go name dir)
  if(NOT DEFINED WEFT_GO_GOOD)
    set(good FALSE)
    if(WEFT_GO)
      execute_process(COMMAND ${WEFT_GO} env GOVERSION OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE
                      ERROR_QUIET)
      string(REGEX REPLACE "^go([0-9]+\\.[0-9]+).*" "\\1" version "${version}")
      if(version VERSION_GREATER_EQUAL 1.24)
        set(good TRUE)
      endif()
    endif()
    set(WEFT_GO_GOOD ${good} CACHE INTERNAL "A Go that can export functions from WebAssembly")
  endif()
  if(NOT WEFT_GO_GOOD)
    message(STATUS "no Go >= 1.24 in PATH: ${name}.wasm is not built")
    return()
  endif()
  set(output ${WEFT_GUEST_DIR}/${name}.wasm)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.go ${dir}/go.mod ${PROJECT_SOURCE_DIR}/sdk/go/*.go)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -E env GOOS=wasip1 GOARCH=wasm GOFLAGS=-mod=mod GOPROXY=off
            ${WEFT_GO} build -trimpath -ldflags=-s -buildmode=c-shared -o ${output} .
    DEPENDS ${sources} WORKING_DIRECTORY ${dir} VERBATIM COMMENT "Guest ${name}.wasm (Go)")
  add_custom_target(${name}_guest ALL DEPENDS ${output})
endfunction()
