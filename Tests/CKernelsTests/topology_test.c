/* topology_test.c: what the library reports of the machine, against the system's own calls (topology_system.c, which is
 * what libraries without hwloc report). */
#include "support.h"

lspan_status system_topology_read(lspan_topology *topology);

int main(void)
{
    lspan_topology got, want;
    memset(&got, 0xFF, sizeof got);
    memset(&want, 0xFF, sizeof want);
    test_case("topology");
    CHECK_STATUS(system_topology_read(NULL), lspan_status_null_pointer);
    CHECK_OK(lspan_topology_read(&got));
    CHECK_OK(system_topology_read(&want));
    printf("topology_test: %d cores, %d processors; L1 %lld, L2 %lld, L3 %lld bytes; the system's calls: %d, %d; %lld, %lld, %lld\n",
           got.cores, got.processing_units, (long long)got.l1d_bytes, (long long)got.l2_bytes, (long long)got.l3_bytes,
           want.cores, want.processing_units, (long long)want.l1d_bytes, (long long)want.l2_bytes, (long long)want.l3_bytes);
    CHECK(want.cores >= 1 && want.processing_units >= want.cores && want.memory_bytes > 0);
    CHECK(got.cores == want.cores && got.processing_units == want.processing_units);
    CHECK(got.memory_bytes == want.memory_bytes);
    /* either may not know */
    CHECK(want.l1d_bytes >= 0 && want.l2_bytes >= 0 && want.l3_bytes >= 0);
    CHECK(got.l1d_bytes == want.l1d_bytes || got.l1d_bytes == 0 || want.l1d_bytes == 0);
    CHECK(got.l2_bytes == want.l2_bytes || got.l2_bytes == 0 || want.l2_bytes == 0);
    return test_finish("topology_test");
}
