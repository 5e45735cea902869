# For Debian's cross compiler. LSPAN_SYSROOT is a folder with the arm64 packages of OpenBLAS, hwloc and libomp unpacked, as
# Tests/aarch64.sh makes it; the C library is the cross compiler's own. Programs run under qemu-aarch64 as LSPAN_CPU, one
# of those that `qemu-aarch64 -cpu help` lists.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(LSPAN_SYSROOT "" CACHE PATH "Folder with the unpacked arm64 packages")
set(LSPAN_CPU max CACHE STRING "CPU that qemu-aarch64 is")
# CMake's checks of the compiler are projects of their own
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LSPAN_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${LSPAN_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

set(LSPAN_SYSROOT_LIBRARIES ${LSPAN_SYSROOT}/usr/lib/aarch64-linux-gnu)
# where Debian has the OpenBLAS of this threading until its alternatives system links to it
set(LSPAN_SYSROOT_OPENBLAS ${LSPAN_SYSROOT_LIBRARIES}/openblas-openmp)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${LSPAN_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${LSPAN_SYSROOT_LIBRARIES}/pkgconfig:${LSPAN_SYSROOT_OPENBLAS}/pkgconfig)
# headers that differ between architectures
set(CMAKE_C_FLAGS_INIT "-isystem ${LSPAN_SYSROOT}/usr/include/aarch64-linux-gnu")
# what those libraries need themselves
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${LSPAN_SYSROOT_LIBRARIES}")
set(CMAKE_SHARED_LINKER_FLAGS_INIT ${CMAKE_EXE_LINKER_FLAGS_INIT})

set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu ${LSPAN_CPU} -L /usr/aarch64-linux-gnu
    -E LD_LIBRARY_PATH=${LSPAN_SYSROOT_LIBRARIES}:${LSPAN_SYSROOT_OPENBLAS}:/usr/aarch64-linux-gnu/lib)
