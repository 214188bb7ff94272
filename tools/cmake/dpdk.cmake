# SPDX-License-Identifier: Apache-2.0
# DPDK 22.11 as Debian has it: libraries from their packages, headers installed or unpacked by tools/fetch_dpdk. Where
# both are there, target weft_dpdk carries them and WEFT_DPDK is true; else there is no DPDK port.
find_path(WEFT_DPDK_INCLUDE rte_ethdev.h PATHS ${PROJECT_SOURCE_DIR}/build/dpdk/include/dpdk /usr/include/dpdk NO_DEFAULT_PATH)
find_path(WEFT_DPDK_CONFIG_INCLUDE rte_config.h
  PATHS ${WEFT_DPDK_INCLUDE} /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/dpdk NO_DEFAULT_PATH)
set(WEFT_DPDK ${WEFT_DPDK_CONFIG_INCLUDE})
set(dpdk_libraries)
foreach(library ethdev mbuf mempool ring eal net_ring)
  # Without libdpdk-dev a library has its versioned name only.
  find_library(WEFT_DPDK_${library} NAMES librte_${library}.so.23 librte_${library}.so)
  list(APPEND dpdk_libraries ${WEFT_DPDK_${library}})
  if(NOT WEFT_DPDK_${library})
    set(WEFT_DPDK FALSE)
  endif()
endforeach()
if(WEFT_DPDK)
  add_library(weft_dpdk INTERFACE)
  target_include_directories(weft_dpdk SYSTEM INTERFACE ${WEFT_DPDK_INCLUDE} ${WEFT_DPDK_CONFIG_INCLUDE})
  # Only programs that use the port load the libraries.
  target_link_libraries(weft_dpdk INTERFACE -Wl,--push-state,--as-needed ${dpdk_libraries} -Wl,--pop-state)
else()
  message(STATUS "No DPDK 22.11: weft is built without its DPDK port (tools/setup installs it)")
endif()
