import LongspanKernels
import Testing

@Suite struct KernelContextTests {
  @Test func namesTheVariantAndTeamInUse() throws {
    for variant in KernelContext.variants where variant.isSupported {
      let context = try KernelContext(threads: 3, isa: variant.name)
      #expect(context.isa == variant.name)
      #expect(context.workerCount == 3)
    }
  }

  @Test func scalarIsAlwaysThere() {
    #expect(KernelContext.variants.contains { $0.name == "scalar" && $0.isSupported })
  }

  @Test func refusesAnUnknownVariantByName() {
    let error = #expect(throws: LongspanError.self) { _ = try KernelContext(isa: "avx9000") }
    #expect(error?.code == .unknownISA)
    #expect(error?.message.contains("avx9000") == true)
    #expect(error?.message.contains("scalar") == true)
  }

  @Test(arguments: [-1, 4097, Int.max]) func refusesAnImpossibleTeam(threads: Int) {
    let error = #expect(throws: LongspanError.self) { _ = try KernelContext(threads: threads) }
    #expect(error?.code == .badValue)
  }

  @Test(arguments: [-1, 4097, Int.max]) func refusesAnImpossibleSplit(split: Int) {
    let error = #expect(throws: LongspanError.self) { _ = try KernelContext(fixedSplit: split) }
    #expect(error?.code == .badValue)
    #expect(error?.message.contains("fixedSplit: \(split)") == true)
  }

  @Test func readsTheTopology() throws {
    let topology = try MachineTopology()
    #expect(topology.cores >= 1)
    #expect(topology.processingUnits >= topology.cores)
    #expect(topology.memoryBytes > 0)
  }
}
