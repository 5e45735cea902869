import Foundation
import LongspanKernels
import Testing

@Suite(.serialized) struct PackedWeightsTests {
  private let context: KernelContext

  init() throws {
    context = try KernelContext(threads: 2)
  }

  /// q8_0 blocks with a scale of about 1/15 and quants of every value.
  private func blocks(rows: Int, columns: Int, seed: Int = 37) throws -> WeightMatrix {
    let bytes = (0..<rows * columns / 32 * 34).map { index in
      index % 34 == 0 ? 0x44 : index % 34 == 1 ? 0x2C : UInt8(index * seed & 0xFF)
    }
    let owner = ByteOwner(bytes)
    return try WeightMatrix(.q8_0, rows: rows, columns: columns, bytes: owner.bytes, owner: owner)
  }

  private func decoded(_ weights: WeightMatrix) throws -> [Float] {
    var values = [Float](repeating: 0, count: weights.rows * weights.columns)
    var span = values.mutableSpan
    try context.dequantize(weights, into: &span)
    return values
  }

  /// x W^T in f64.
  private func expected(_ x: [Float], _ inputs: Int, _ weights: WeightMatrix) throws -> [Double] {
    let w = try decoded(weights)
    let (rows, columns) = (weights.rows, weights.columns)
    return (0..<inputs * rows).map { index in
      (0..<columns).reduce(0.0) { sum, k in
        sum + Double(x[index / rows * columns + k]) * Double(w[index % rows * columns + k])
      }
    }
  }

  /// Rounded to 8 bits an input is off by up to half a step of 1/127 of the largest one, and outputs by the root of their
  /// number times that, about.
  private func tolerance(_ mode: ProductMode, _ columns: Int) -> Double {
    mode == .f32 ? 2e-3 : 0.02 * Double(columns).squareRoot() * 4
  }

  @Test(arguments: ProductMode.allCases, [1, 5, 20])
  func productsMatchTheDecodedWeights(mode: ProductMode, inputs: Int) throws {
    var random = SplitMix64(seed: 11)
    let weights = try blocks(rows: 70, columns: 96)
    let packed = try PackedWeights(weights, on: context)
    #expect(packed.type == .q8_0 && packed.rows == 70 && packed.columns == 96)
    #expect(packed.ownedByteCount == packed.byteCount)
    let x = random.floats(inputs * 96)
    let want = try expected(x, inputs, weights)
    var workspace = Workspace()
    for accumulating in [false, true] {
      var output = [Float](repeating: accumulating ? 1 : .nan, count: inputs * 70)
      var span = output.mutableSpan
      try context.product(
        TensorView(x.span, tokens: inputs, columns: 96), packed, mode: mode, accumulating: accumulating,
        workspace: &workspace, into: &span)
      for (got, want) in zip(output, want) {
        #expect(abs(Double(got) - want - (accumulating ? 1 : 0)) < tolerance(mode, 96))
      }
    }
  }

  @Test(arguments: Activation.allCases) func gatesActivateTheirProduct(activation: Activation) throws {
    var random = SplitMix64(seed: 12)
    let gate = try blocks(rows: 40, columns: 64, seed: 51)
    let up = try blocks(rows: 40, columns: 64)
    // small inputs, so that gates are where the activation bends
    let x = random.floats(3 * 64).map { $0 * 0.05 }
    let gates = try expected(x, 3, gate)
    let ups = try expected(x, 3, up)
    var output = [Float](repeating: .nan, count: 3 * 40)
    var workspace = Workspace()
    var span = output.mutableSpan
    try context.gatedProduct(
      TensorView(x.span, tokens: 3, columns: 64), gate: PackedWeights(gate, on: context),
      up: PackedWeights(up, on: context), activation: activation, mode: .f32, workspace: &workspace,
      into: &span)
    for index in output.indices {
      let g = gates[index]
      let active =
        switch activation {
        case .silu: g / (1 + exp(-g))
        case .geluTanh: 0.5 * g * (1 + tanh((2 / Double.pi).squareRoot() * (g + 0.044715 * g * g * g)))
        case .geluErf: 0.5 * g * (1 + erf(g / 2.0.squareRoot()))
        }
      #expect(abs(Double(output[index]) - active * ups[index]) < 1e-3)
    }
  }

  @Test func threeProductsOfOneInputAreThoseOfThreeCalls() throws {
    var random = SplitMix64(seed: 13)
    let matrices = try [70, 16, 1].map { try PackedWeights(blocks(rows: $0, columns: 64), on: context) }
    let x = random.floats(4 * 64)
    var workspace = Workspace()
    var together = matrices.map { [Float](repeating: .nan, count: 4 * $0.rows) }
    do {
      var a = together[0]
      var b = together[1]
      var c = together[2]
      do {
        var first = a.mutableSpan
        var second = b.mutableSpan
        var third = c.mutableSpan
        try context.products(
          TensorView(x.span, tokens: 4, columns: 64), workspace: &workspace, matrices[0], into: &first,
          matrices[1], into: &second, matrices[2], into: &third)
      }
      together = [a, b, c]
    }
    for (matrix, together) in zip(matrices, together) {
      var alone = [Float](repeating: .nan, count: 4 * matrix.rows)
      var span = alone.mutableSpan
      try context.product(
        TensorView(x.span, tokens: 4, columns: 64), matrix, workspace: &workspace, into: &span)
      #expect(alone == together)
    }
  }

  @Test func aReservationHoldsSeveral() throws {
    let weights = try blocks(rows: 20, columns: 64)
    let bytes = try PackedWeights.byteCount(.q8_0, rows: 20, columns: 64)
    let memory = try ReservedMemory(byteCount: 2 * bytes)
    let first = try PackedWeights(weights, on: context, into: memory, at: 0)
    let second = try PackedWeights(weights, on: context, into: memory, at: bytes)
    #expect(first.byteCount == bytes && first.ownedByteCount == 0)
    let own = try PackedWeights(weights, on: context)
    let x = [Float](repeating: 0.5, count: 64)
    let outputs = try [first, second, own].map { packed in
      var output = [Float](repeating: .nan, count: 20)
      var workspace = Workspace()
      var span = output.mutableSpan
      try context.product(
        TensorView(x.span, tokens: 1, columns: 64), packed, workspace: &workspace, into: &span)
      return output
    }
    #expect(outputs[0] == outputs[2] && outputs[1] == outputs[2])

    func failure(at offset: Int) -> LongspanError? {
      #expect(throws: LongspanError.self) {
        _ = try PackedWeights(weights, on: context, into: memory, at: offset)
      }
    }
    #expect(failure(at: 32)?.code == .badAlignment)
    #expect(failure(at: bytes + 64)?.code == .badIndex)
    #expect(failure(at: -64)?.code == .badIndex)
    #expect(failure(at: Int.max - 63)?.code == .badIndex)
  }

  @Test func typesThatCannotBePackedAreRefused() throws {
    let packable = WeightType.allCases.filter(PackedWeights.canPack)
    #expect(packable == [.f32, .f16, .q4_0, .q4_1, .q8_0, .q4_K, .q6_K, .bf16])
    let owner = ByteOwner([UInt8](repeating: 0, count: 22))
    let weights = try WeightMatrix(.q5_0, rows: 1, columns: 32, bytes: owner.bytes, owner: owner)
    let error = #expect(throws: LongspanError.self) { _ = try PackedWeights(weights, on: context) }
    #expect(error?.code == .badElementType)
    #expect(error?.message.contains("type q5_0 cannot be packed; those of f32, f16, q4_0") == true)
    let odd = #expect(throws: LongspanError.self) {
      _ = try PackedWeights.byteCount(.q8_0, rows: 1, columns: 33)
    }
    #expect(odd?.code == .badShape && odd?.message.contains("whole blocks of 32") == true)
  }

  @Test func operandsThatDoNotFitAreRefused() throws {
    let packed = try PackedWeights(blocks(rows: 20, columns: 64), on: context)
    let other = try PackedWeights(blocks(rows: 21, columns: 64), on: context)
    let x = [Float](repeating: 1, count: 2 * 64)
    var workspace = Workspace()
    func failure(
      _ body: (inout MutableSpan<Float>, inout Workspace) throws -> Void
    ) -> LongspanError? {
      var output = [Float](repeating: 9, count: 20)
      let error = #expect(throws: LongspanError.self) {
        var span = output.mutableSpan
        try body(&span, &workspace)
      }
      #expect(output.allSatisfy { $0 == 9 })
      return error
    }
    let narrow = failure { out, workspace in
      try context.product(
        TensorView(x.span, tokens: 1, columns: 32), packed, workspace: &workspace, into: &out)
    }
    #expect(narrow?.code == .badShape && narrow?.message.contains("1 x 32 and 20 x 64") == true)
    let short = failure { out, workspace in
      try context.product(
        TensorView(x.span, tokens: 2, columns: 64), packed, workspace: &workspace, into: &out)
    }
    #expect(short?.message.contains("40 elements are needed, but it has 20") == true)
    let half = failure { out, workspace in
      let layout = TensorLayout(.bf16, tokens: 1, columns: 64)
      try context.product(TensorView(x.span.bytes, layout), packed, workspace: &workspace, into: &out)
    }
    #expect(half?.message.contains("f32 matrix") == true)
    let gate = failure { out, workspace in
      try context.gatedProduct(
        TensorView(x.span, tokens: 1, columns: 64), gate: other, up: packed, activation: .silu,
        workspace: &workspace, into: &out)
    }
    #expect(gate?.message.contains("gate of 21 x 64 q8_0 and up of 20 x 64 q8_0 differ") == true)
  }

  @Test func productsAreProfiled() throws {
    let packed = try PackedWeights(blocks(rows: 20, columns: 64), on: context)
    let x = [Float](repeating: 1, count: 64)
    var output = [Float](repeating: 0, count: 20)
    var workspace = Workspace()
    var span = output.mutableSpan
    let profile = try KernelProfile(of: context, capacity: 1)
    try context.product(
      TensorView(x.span, tokens: 1, columns: 64), packed, workspace: &workspace, into: &span)
    let recording = profile.stop()
    let call = try #require(recording.calls.first)
    #expect(call.kernel == .product && call.name == "product_q8_0" && call.weightType == .q8_0)
    #expect(call.elementType == nil && call.kernel.readsStoredOperands)
    #expect(call.bytes == 20 * 2 * 34 + (64 + 20) * 4 && call.flops == 2 * 20 * 64)
  }
}
