import LongspanKernels
import Testing

@testable import LongspanMeasure

struct TimingTests {
  @Test func medianIsTheMiddle() throws {
    #expect(try #require(Timing([5, 1, 9])).median == 5)
    #expect(try #require(Timing([8, 1, 2, 4])).median == 3)
    #expect(try #require(Timing([7])).median == 7)
    #expect(try #require(Timing([7, 3, 5])).minimum == 3)
    #expect(try #require(Timing([7, 3, 5])).repetitions == 3)
    #expect(Timing([]) == nil)
  }
}

/// The formulas of bytes and FLOPs, by hand.
struct BenchmarkCostTests {
  private func cost(
    _ kernel: BenchmarkKernel, _ shape: [String: Int], _ type: ElementType = .f32
  ) throws -> BenchmarkCost {
    try BenchmarkCase(kernel, shape, type).cost()
  }

  @Test func decodeReadsEachKeyAndValueOnce() throws {
    let shape = ["Hq": 32, "Hk": 8, "D": 128, "S": 4096, "T": 1, "window": 0]
    let f32 = try cost(.attentionDecode, shape)
    #expect(f32.bytes == 2 * 4096 * 8 * 128 * 4 + 2 * 32 * 128 * 4)
    #expect(f32.flops == 4 * 32 * 128 * 4096)
    #expect(f32.exponentials == 32 * 4096)
    let bf16 = try cost(.attentionDecode, shape, .bf16)
    #expect(bf16.bytes == 2 * 4096 * 8 * 128 * 2 + 32 * 128 * (2 + 4))
    #expect(bf16.flops == f32.flops)
    let window = try cost(.attentionDecode, shape.merging(["window": 100]) { $1 })
    #expect(window.bytes == 2 * 100 * 8 * 128 * 4 + 2 * 32 * 128 * 4)
    #expect(window.flops == 4 * 32 * 128 * 100)
  }

  @Test func causalPrefillDoesHalfTheProducts() throws {
    let shape = ["Hq": 32, "Hk": 8, "D": 128, "N": 1024, "window": 0]
    let full = try cost(.attentionPrefill, shape)
    #expect(full.flops == 2 * 2 * 1024 * 1024 / 2 * 128 * 32)
    #expect(full.bytes == 2 * 1024 * 8 * 128 * 4 + 2 * 1024 * 32 * 128 * 4)
    let wide = try cost(.attentionPrefill, shape.merging(["window": 5000]) { $1 })
    #expect(wide == full)
    let narrow = try cost(.attentionPrefill, shape.merging(["window": 256]) { $1 })
    #expect(narrow.flops == 4 * 32 * 128 * (1024 * 256 - 256 * 256 / 2))
  }

  @Test func layersMoveInputsAndOutputsOnce() throws {
    #expect(try cost(.attentionMerge, ["P": 8, "R": 10, "D": 16]).bytes == (8 * 10 + 10) * 17 * 4)
    #expect(try cost(.rope, ["T": 3, "H": 2, "D": 8], .bf16).bytes == 2 * 48 * 2 + 3 * 8 * 4)
    #expect(try cost(.rmsNorm, ["R": 2, "C": 10]).bytes == 2 * 20 * 4 + 10 * 4)
    #expect(try cost(.layerNorm, ["R": 2, "C": 10], .f16).bytes == 20 * (2 + 4) + 2 * 10 * 4)
    #expect(try cost(.gate(.silu), ["R": 2, "C": 10], .bf16).bytes == 20 * (2 * 2 + 4))
    #expect(try cost(.convert, ["T": 2, "H": 3, "D": 4], .f16).bytes == 24 * (4 + 2))
    #expect(try cost(.logSoftmaxGather, ["R": 2, "V": 100]).bytes == 200 * 4 + 2 * 12)
    #expect(try cost(.embedding, ["T": 5, "V": 100, "C": 8], .bf16).bytes == 40 * (2 + 4) + 5 * 4)
    #expect(try cost(.dequantize(.q4_K), ["M": 2, "K": 512]).bytes == 2 * 2 * 144 + 1024 * 4)
    let linear = try cost(.linear(.q8_0), ["R": 3, "M": 4, "K": 64])
    #expect(linear.bytes == 4 * 2 * 34 + 3 * (4 + 64) * 4)
    #expect(linear.flops == 2 * 3 * 4 * 64)
    #expect(try cost(.product(.q8_0), ["R": 3, "M": 4, "K": 64]) == linear)
  }

  @Test func chosenTokensAloneAreRead() throws {
    let shape = ["Hq": 32, "Hk": 8, "D": 128, "S": 131_072, "T": 1, "K": 2048, "block": 1]
    let tokens = try cost(.sparseDecode, shape, .bf16)
    #expect(tokens.bytes == 2 * 2048 * 8 * 128 * 2 + 32 * 128 * 6 + 4 * 8 * 2048)
    #expect(tokens.flops == 4 * 32 * 128 * 2048)
    let blocks = try cost(.sparseDecode, shape.merging(["K": 8192, "block": 64]) { $1 })
    #expect(blocks.bytes == 2 * 8192 * 8 * 128 * 4 + 32 * 128 * 8 + 4 * 8 * 128)
    let prefill = try cost(.sparsePrefill, ["Hq": 4, "Hk": 2, "D": 8, "N": 200, "K": 50, "block": 1])
    #expect(prefill.bytes == 2 * 2 * 50 * 2 * 8 * 4 + 200 * 4 * 8 * 8 + 4 * 2 * 2 * 50)
    // the mask drawn in sparse.h, with one kept slot of each window
    let lag = try cost(.lagPrefill, ["Hq": 1, "Hk": 1, "D": 8, "N": 8, "sink": 1, "W": 2, "K": 1])
    #expect(lag.exponentials == 1 + 2 + 3 + 4 + 5 + 5 + 6 + 6)
  }

  @Test func compressionReadsTwoWindowsAndWritesWhatIsLeft() throws {
    let shape = ["H": 8, "D": 128, "W": 1024, "P": 1]
    let scores = try cost(.lagScores, shape, .bf16)
    #expect(scores.bytes == 2 * 2 * 1024 * 8 * 128 * 2 + 4 * 8 * 1024)
    let all = try cost(.lagCompression, shape.merging(["K": 256]) { $1 }, .bf16)
    #expect(all.bytes == 2 * 2 * 1024 * 8 * 128 * 2 + 2 * (256 + 1024) * 8 * 128 * 2)
    // every fourth slot: the first stays
    #expect(try cost(.compact, ["H": 2, "D": 8, "N": 40, "K": 10]).bytes == 4 * 2 * 9 * 8 * 4)
    #expect(try cost(.select, ["R": 3, "N": 10, "K": 4]).bytes == 4 * 30 + 4 * 12 + 8 * 4)
    #expect(try cost(.ropeShift, ["T": 3, "H": 2, "D": 8], .bf16).bytes == 2 * 48 * 2 + 3 * 4 + 3 * 8 * 4)
  }

  @Test(arguments: [
    (BenchmarkKernel.sparseDecode, ["Hq": 4, "Hk": 2, "D": 8, "S": 64, "T": 1, "K": 65, "block": 1]),
    (.sparseDecode, ["Hq": 4, "Hk": 2, "D": 8, "S": 64, "T": 1, "K": 24, "block": 16]),
    (.sparseDecode, ["Hq": 4, "Hk": 2, "D": 8, "S": 65, "T": 1, "K": 32, "block": 16]),
    (.compact, ["H": 4, "D": 8, "N": 64, "K": 65]),
    (.lagCompression, ["H": 4, "D": 8, "W": 4, "P": 1, "K": 5]),
  ])
  func choicesThatCannotBeAreRefused(kernel: BenchmarkKernel, shape: [String: Int]) {
    #expect(throws: LongspanError.self) { try BenchmarkCase(kernel, shape).validate() }
  }

  @Test func shapesThatCannotBeCountedAreRefused() {
    #expect(throws: LongspanError.self) { try cost(.rmsNorm, ["R": .max, "C": .max]) }
  }
}

struct BenchmarkSelectionTests {
  @Test func everyKernelIsInTheStandardTable() throws {
    let names = Set(BenchmarkCase.standard.map(\.name))
    for name in [
      "attention_decode", "attention_prefill", "attention_merge", "rope", "rms_norm", "layer_norm",
      "gate_silu", "gate_gelu_tanh", "gate_gelu_erf", "convert", "log_softmax_gather", "embedding",
      "linear_f32",
    ] {
      #expect(names.contains(name), "\(name)")
    }
    for type in WeightType.allCases { #expect(names.contains("dequantize_\(type)")) }
    for type in WeightType.allCases {
      #expect(names.contains("product_\(type)") == PackedWeights.canPack(type), "product_\(type)")
    }
    for one in BenchmarkCase.standard + BenchmarkCase.products { try one.validate() }
  }

  @Test func aShapeReplacesDimensionsAndLeavesKernelsWithoutThemOut() throws {
    let cases = try BenchmarkCase.select(shape: ["S": 77, "Hq": 24], elementType: .f16, cache: .warm)
    #expect(cases.count == 2)
    for one in cases {
      #expect(
        one.name == "attention_decode" && one.shape["S"] == 77 && one.shape["Hq"] == 24
          && one.elementType == .f16)
    }
  }

  @Test func aFilterOfTwoNamesTakesBothAndReachesProductsOfEveryNumberOfRows() throws {
    let cases = try BenchmarkCase.select(filter: "product_q8,linear_q8")
    for name in ["product_q8_0", "linear_q8_0"] {
      let rows = Set(cases.filter { $0.name == name && $0.cache == .cold }.compactMap { $0.shape["R"] })
      #expect(rows == [1, 2, 4, 8, 16, 64, 512], "\(name)")
    }
    #expect(Set(cases.map(\.name)) == ["product_q8_0", "linear_q8_0"] && Set(cases).count == cases.count)
    let all = try BenchmarkCase.select()
    #expect(all.count < BenchmarkCase.standard.count + BenchmarkCase.products.count)
  }

  @Test func casesThatCannotTakeTheShapeAreLeftOut() throws {
    // 32 heads do not divide into the 3 key/value heads of the smaller model
    let cases = try BenchmarkCase.select(shape: ["S": 64, "Hq": 32], elementType: .f32, cache: .warm)
    #expect(cases.map { $0.shape["Hk"] } == [8])
  }

  @Test func whatDoesNotExistIsNamed() {
    func message(_ body: () throws(LongspanError) -> [BenchmarkCase]) -> String {
      do throws(LongspanError) {
        _ = try body()
        return ""
      } catch {
        return error.message
      }
    }
    #expect(
      message { () throws(LongspanError) in try BenchmarkCase.select(filter: "x1") }.contains("rms_norm"))
    #expect(
      message { () throws(LongspanError) in try BenchmarkCase.select(filter: "rms", shape: ["S": 1]) }
        .contains("there are R, C"))
    #expect(
      message { () throws(LongspanError) in try BenchmarkCase.select(filter: "merge", elementType: .bf16) }
        .contains("bf16"))
    #expect(
      message { () throws(LongspanError) in try BenchmarkCase.select(filter: "rms", shape: ["R": 0]) }
        .contains("R=0"))
  }
}

@Suite(.serialized) struct BenchmarkRunnerTests {
  private static let rate = MachineCeilings.Rate(best: 1e9, median: 1e9)

  @Test func theCeilingIsTheOneMostUsed() throws {
    let topology = try MachineTopology()
    let one = BenchmarkCase(.linear(.f32), ["R": 1, "M": 4, "K": 4], cache: .cold)
    let cost = try one.cost()
    func bound(fma: Double) -> (MachineCeilings.Ceiling, Double) {
      let peak = MachineCeilings.Rate(best: fma, median: fma)
      let team = MachineCeilings.Team(
        threads: 1, dram: Self.rate, l3: Self.rate, l2: Self.rate, fmaF32: peak, fmaBF16: nil, exp: peak)
      let bound = BenchmarkRunner.bound(one, cost, nanoseconds: 1000, team: team, topology: topology)
      return (bound.ceiling, bound.fraction)
    }
    // 96 bytes and 32 FLOPs in a microsecond
    #expect(bound(fma: 1e9).0 == .dram)
    #expect(abs(bound(fma: 1e9).1 - 0.096) < 1e-9)
    #expect(bound(fma: 1e8).0 == .fmaF32)
    #expect(abs(bound(fma: 1e8).1 - 0.32) < 1e-9)
  }

  /// Products in 8 bits are not held against a ceiling of other arithmetic.
  @Test func productsAreHeldAgainstTheirOwnArithmetic() throws {
    let topology = try MachineTopology()
    func bound(_ kernel: BenchmarkKernel) throws -> MachineCeilings.Ceiling {
      let one = BenchmarkCase(kernel, ["R": 512, "M": 256, "K": 256], cache: .cold)
      let team = MachineCeilings.Team(
        threads: 1, dram: Self.rate, l3: Self.rate, l2: Self.rate, fmaF32: Self.rate, fmaBF16: Self.rate,
        exp: Self.rate)
      return BenchmarkRunner.bound(
        one, try one.cost(), nanoseconds: 1e6, team: team, topology: topology
      ).ceiling
    }
    #expect(try bound(.product(.q4_K)) == .dram)
    #expect(try bound(.product(.bf16)) == .fmaBF16)
    #expect(try bound(.product(.f16)) == .fmaF32)
    #expect(try bound(.linear(.q4_K)) == .fmaF32)
  }

  @Test func coldOperandsOutgrowTheCache() {
    #expect(BenchmarkRunner.copies(of: 1000, cache: .warm, lastLevelBytes: 1 << 20) == 1)
    #expect(BenchmarkRunner.copies(of: 1 << 20, cache: .cold, lastLevelBytes: 1 << 20) == 4)
    #expect(BenchmarkRunner.copies(of: 3 << 20, cache: .cold, lastLevelBytes: 1 << 20) == 2)
    #expect(BenchmarkRunner.copies(of: 4 << 20, cache: .cold, lastLevelBytes: 1 << 20) == 1)
  }

  @Test func ceilingsReadHalfOfACache() {
    let sizes = MachineCeilings.ReadSizes(
      l2Bytes: 1 << 20, l3Bytes: 32 << 20, threads: 2, availableBytes: 1 << 40)
    #expect(sizes.l2 == 1 << 20 && sizes.l3 == 16 << 20 && sizes.dram == 128 << 20)
    let little = MachineCeilings.ReadSizes(
      l2Bytes: 1 << 20, l3Bytes: 32 << 20, threads: 2, availableBytes: 64 << 20)
    #expect(little.dram == 16 << 20)
  }

  @Test func ceilingsAreMeasured() throws {
    let ceilings = try MachineCeilings.measure(
      threadCounts: [2, 1, 2], topology: try MachineTopology(), seconds: 0)
    #expect(ceilings.teams.map(\.threads) == [1, 2])
    for team in ceilings.teams {
      for rate in [team.dram, team.l3, team.l2, team.fmaF32, team.exp] {
        #expect(rate.best >= rate.median && rate.median > 1e6)
      }
    }
    #expect(ceilings[3] == nil)
  }

  /// Every kernel at a small shape, in both cache states and every element type.
  @Test func everyKernelRuns() throws {
    let topology = try MachineTopology()
    let context = try KernelContext(threads: 2)
    // far above any machine, so that another process that takes a core now does not matter
    let peak = MachineCeilings.Rate(best: 1e14, median: 1e14)
    let team = MachineCeilings.Team(
      threads: 2, dram: peak, l3: peak, l2: peak, fmaF32: peak, fmaBF16: peak, exp: peak)
    let ceilings = MachineCeilings(variant: "none", teams: [team])
    let runner = BenchmarkRunner(topology: topology, ceilings: ceilings, seconds: 0)
    var seen: Set<BenchmarkCase> = []
    for standard in BenchmarkCase.standard {
      let shape = SmallShapes.shape(for: standard)
      let one = BenchmarkCase(standard.kernel, shape, standard.elementType, cache: standard.cache)
      guard seen.insert(one).inserted else { continue }
      let row = try runner.run(one, on: context)
      #expect(row.nsMin > 0 && row.nsMin <= row.nsMedian, "\(row.name)")
      // reading the operands of cold cases is measured, and other processes take cores then too
      let isMeasured = row.ceiling == .dram && row.ceilingRate < peak.best
      #expect(row.fractionOfCeiling > 0 && (isMeasured || row.fractionOfCeiling < 1), "\(row)")
      // a cache of which some tokens are chosen is not larger than the caches here
      let isRead = one.cache == .cold && one.kernel.isAttention && one.kernel != .sparseDecode
      #expect(!isRead || isMeasured, "\(row)")
      #expect(row.threads == 2 && row.cache == one.cache)
    }
    #expect(seen.count > 30)
  }
}

struct CallCostTests {
  /// Both languages make the same call, so its work, which is most of it, is in every time.
  @Test func everyWayIsTimed() throws {
    let costs = try CallCost.measure(isa: "scalar", seconds: 0.01)
    #expect(costs.map(\.way) == CallCost.Way.allCases)
    for cost in costs {
      #expect(cost.timing.repetitions >= 1)
      #expect(cost.timing.minimum > 100 && cost.timing.minimum <= cost.timing.median)
    }
    #expect(throws: LongspanError.self) { try CallCost.measure(isa: "sse9", seconds: 0) }
  }
}
