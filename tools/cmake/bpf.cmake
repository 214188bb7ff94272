# SPDX-License-Identifier: Apache-2.0
# BPF programs: clang builds the object, bpftool makes it a C header (a libbpf skeleton) with the object inside.
# Nothing of the running kernel goes into it; what it needs to know of a kernel, libbpf relocates when it loads it.
find_program(BPF_CLANG NAMES clang-19 clang REQUIRED)
find_program(BPFTOOL bpftool PATHS /usr/sbin /sbin REQUIRED)
find_path(LIBBPF_INCLUDE bpf/libbpf.h REQUIRED)
find_library(LIBBPF bpf REQUIRED)

# Oldest instruction set of the kernels that weft runs on: version 3, Linux 5.1.
# bpf_helpers.h needs the kernel's types and includes none; sorted includes would put it first.
set(WEFT_BPF_FLAGS -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -include linux/types.h)
# The headers of the kernel's interface include asm/, which lies in a folder of the host's architecture.
if(CMAKE_LIBRARY_ARCHITECTURE)
  list(APPEND WEFT_BPF_FLAGS -idirafter /usr/include/${CMAKE_LIBRARY_ARCHITECTURE})
endif()

# weft_bpf_program(TARGET NAME): builds NAME.bpf.c of the current folder into <folder>/NAME.skel.h of the build tree, which
# users of the interface library TARGET include. An edit of any header that the program includes builds it anew.
function(weft_bpf_program target name)
  set(source ${CMAKE_CURRENT_SOURCE_DIR}/${name}.bpf.c)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.bpf.o)
  set(skeleton ${CMAKE_CURRENT_BINARY_DIR}/${name}.skel.h)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${BPF_CLANG} ${WEFT_BPF_FLAGS} -I${PROJECT_SOURCE_DIR} -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}.full
    # Drops what is for debuggers and keeps the types.
    COMMAND ${BPFTOOL} gen object ${object} ${object}.full
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "Building BPF program ${name}"
    VERBATIM)
  add_custom_command(
    OUTPUT ${skeleton}
    COMMAND ${BPFTOOL} gen skeleton ${object} name ${name}_bpf > ${skeleton}
    DEPENDS ${object})
  add_custom_target(${target}_skeleton DEPENDS ${skeleton})
  add_library(${target} INTERFACE)
  add_dependencies(${target} ${target}_skeleton)
  target_include_directories(${target} SYSTEM INTERFACE ${PROJECT_BINARY_DIR} ${LIBBPF_INCLUDE})
  target_link_libraries(${target} INTERFACE weft_bpf_abi ${LIBBPF})
endfunction()
