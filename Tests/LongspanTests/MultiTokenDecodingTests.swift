import Longspan
import LongspanKernels
import Testing

/// The schedule of direct multi-token decoding as a value.
@Suite struct MultiTokenDecodingTests {
  @Test func isWrittenAsAnOption() throws {
    let plain = try MultiTokenDecoding(cycle: 4, lateLayers: 8)
    #expect(plain.description == "dmtd:cycle=4,late=8,early=0,phase=prompt")
    let other = try MultiTokenDecoding(cycle: 6, lateLayers: 3, earlyLayers: 2, phase: .absolute)
    #expect(other.description == "dmtd:cycle=6,late=3,early=2,phase=absolute")
    #expect(plain != other)
  }

  @Test func groupsCoverTheLayers() throws {
    let groups = try MultiTokenDecoding(cycle: 4, lateLayers: 8).layerGroups(of: 36)
    #expect(groups.early.isEmpty && groups.thinking == 0..<28 && groups.late == 28..<36)
    let split = try MultiTokenDecoding(cycle: 2, lateLayers: 2, earlyLayers: 1).layerGroups(of: 5)
    #expect(split.early == 0..<1 && split.thinking == 1..<3 && split.late == 3..<5)
    let none = try MultiTokenDecoding(cycle: 2, lateLayers: 4, earlyLayers: 1).layerGroups(of: 5)
    #expect(none.early == 0..<1 && none.thinking.isEmpty && none.late == 1..<5)
  }

  @Test(arguments: [
    (0, 1, 0, "cycle 0"), (-1, 1, 0, "cycle -1"), (1 << 31, 1, 0, "cycle 2147483648"), (1, 0, 0, "late 0"),
    (1, -2, 0, "late -2"), (1, 1, -1, "early -1"),
  ])
  func parametersOutOfRangeAreNamed(cycle: Int, late: Int, early: Int, part: String) {
    let error = #expect(throws: LongspanError.self) {
      _ = try MultiTokenDecoding(cycle: cycle, lateLayers: late, earlyLayers: early)
    }
    #expect(error?.code == .invalidArgument)
    #expect(error?.message.contains(part) == true)
  }

  @Test func groupsThatDoNotFitAreNamed() throws {
    for (late, early, part) in [
      (6, 0, "late 6 is more than the model's 5 layers"),
      (3, 3, "early 3 and late 3 together are more than the model's 5 layers"),
      (5, Int.max, "together are more than"),
    ] {
      let decoding = try MultiTokenDecoding(cycle: 2, lateLayers: late, earlyLayers: early)
      let error = #expect(throws: LongspanError.self) { _ = try decoding.layerGroups(of: 5) }
      #expect(error?.message.contains(part) == true)
    }
  }

  @Test func aPolicyNamesTheModelsLayers() throws {
    let policy = try LagRelativeCompression(sink: 2, lag: 8, skippedLayers: [0, 3, 4])
    let group = try #require(policy.policy(forLayers: 3..<5) as? LagRelativeCompression)
    #expect(group.skippedLayers == [0, 1])
    #expect(policy.policy(forLayers: 0..<5) as? LagRelativeCompression == policy)
    #expect(DensePolicy().policy(forLayers: 1..<2) is DensePolicy)
  }
}
