/* topology.c: the machine as hwloc sees it, the only file that uses hwloc; without it topology_system.c takes its place. */
#include <hwloc.h>
#include <longspan/context.h>
#include <unistd.h>

static int64_t cache_bytes(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    hwloc_obj_t cache = hwloc_get_obj_by_type(topology, type, 0);
    return cache ? (int64_t)cache->attr->cache.size : 0;
}

/* Objects of a type that this process may run on. */
static int32_t count_allowed(hwloc_topology_t topology, hwloc_obj_type_t type, hwloc_const_cpuset_t allowed)
{
    int count = hwloc_get_nbobjs_inside_cpuset_by_type(topology, allowed, type);
    if (count > 0) return (int32_t)count;
    /* a process bound to part of a core has no whole core inside its set, but still runs on one */
    int covering = 0;
    int total = hwloc_get_nbobjs_by_type(topology, type);
    for (int i = 0; i < total; i++) {
        hwloc_obj_t object = hwloc_get_obj_by_type(topology, type, (unsigned)i);
        if (object && hwloc_bitmap_intersects(object->cpuset, allowed)) covering++;
    }
    return (int32_t)covering;
}

lspan_status lspan_topology_read(lspan_topology *topology)
{
    if (!topology) return lspan_status_null_pointer;
    hwloc_topology_t machine;
    if (hwloc_topology_init(&machine) != 0) return lspan_status_out_of_memory;
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    if (!allowed || hwloc_topology_load(machine) != 0) {
        hwloc_bitmap_free(allowed);
        hwloc_topology_destroy(machine);
        return lspan_status_out_of_memory;
    }
    if (hwloc_get_cpubind(machine, allowed, HWLOC_CPUBIND_PROCESS) != 0) {
        hwloc_bitmap_copy(allowed, hwloc_topology_get_allowed_cpuset(machine));
    }
    lspan_topology t = {0};
    int packages = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_PACKAGE);
    int nodes = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_NUMANODE);
    t.packages = packages > 0 ? (int32_t)packages : 0;
    t.numa_nodes = nodes > 0 ? (int32_t)nodes : 0;
    t.cores = count_allowed(machine, HWLOC_OBJ_CORE, allowed);
    t.processing_units = count_allowed(machine, HWLOC_OBJ_PU, allowed);
    t.l1d_bytes = cache_bytes(machine, HWLOC_OBJ_L1CACHE);
    t.l2_bytes = cache_bytes(machine, HWLOC_OBJ_L2CACHE);
    t.l3_bytes = cache_bytes(machine, HWLOC_OBJ_L3CACHE);
    /* hwloc counts what the firmware lists, which in a virtual machine can be less than there is */
    t.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    hwloc_bitmap_free(allowed);
    hwloc_topology_destroy(machine);
    *topology = t;
    return lspan_status_ok;
}
