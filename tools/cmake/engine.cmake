# SPDX-License-Identifier: Apache-2.0
# Builds the Wasm engine (dataplane/host/engine, a Rust static library) with cargo and declares it as the target
# weft_engine. Compiling it takes minutes, so all build trees of a source tree share cargo's directory, build/cargo;
# WEFT_CARGO_TARGET_DIR in the environment at configure time names another, to share it between source trees too.
# The library and the headers are copied from there into the build tree, so that another tree's state of the
# sources cannot change under this one.

set(cargo_hints $ENV{HOME}/.cargo/bin)
find_program(WEFT_CARGO NAMES cargo cargo-web HINTS ${cargo_hints})
if(NOT WEFT_CARGO)
  message(FATAL_ERROR "the Wasm engine needs cargo (Rust 1.95 or newer, or Debian's cargo-web and rustc-web)")
endif()

set(engine_dir ${PROJECT_SOURCE_DIR}/dataplane/host/engine)
set(engine_out ${PROJECT_BINARY_DIR}/engine)
if(DEFINED ENV{WEFT_CARGO_TARGET_DIR})
  set(WEFT_CARGO_TARGET_DIR $ENV{WEFT_CARGO_TARGET_DIR} CACHE PATH "Where cargo builds the engine")
else()
  set(WEFT_CARGO_TARGET_DIR ${PROJECT_SOURCE_DIR}/build/cargo CACHE PATH "Where cargo builds the engine")
endif()
file(MAKE_DIRECTORY ${engine_out}/include)

add_custom_command(
  OUTPUT ${engine_out}/libweft_engine.a ${engine_out}/include/wasmtime.h
  COMMAND ${WEFT_CARGO} build --release --locked --quiet --manifest-path ${engine_dir}/Cargo.toml
          --target-dir ${WEFT_CARGO_TARGET_DIR}
  COMMAND ${CMAKE_COMMAND} -E copy ${WEFT_CARGO_TARGET_DIR}/release/libweft_engine.a ${engine_out}/libweft_engine.a
  COMMAND ${CMAKE_COMMAND} -E copy_directory ${WEFT_CARGO_TARGET_DIR}/weft-include ${engine_out}/include
  DEPENDS ${engine_dir}/Cargo.toml ${engine_dir}/Cargo.lock ${engine_dir}/build.rs ${engine_dir}/src/lib.rs
  COMMENT "Wasm engine (cargo, some minutes the first time)" VERBATIM)
add_custom_target(weft_engine_build DEPENDS ${engine_out}/libweft_engine.a ${engine_out}/include/wasmtime.h)

add_library(weft_engine INTERFACE)
add_dependencies(weft_engine weft_engine_build)
target_include_directories(weft_engine SYSTEM INTERFACE ${engine_out}/include)
target_link_libraries(weft_engine INTERFACE ${engine_out}/libweft_engine.a m dl pthread)
# Static functions of the engine that nothing calls are most of its bulk.
target_link_options(weft_engine INTERFACE -Wl,--gc-sections)
